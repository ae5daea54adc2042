//! What the program says about itself: help, manual page, completions.
//!
//! Owns the texts around the option table. Invariant: every option is taken from `table`, none is listed twice.

use super::table::{Description, GROUPS};
use std::fmt::Write as _;

const EXAMPLES: [(&str, &str); 5] = [
    (
        "A writable stack, as root or as any user with fusermount3",
        "lamina-fs -o lowerdir=/layers/app:/layers/base,upperdir=/run/me/up,workdir=/run/me/work /mnt",
    ),
    (
        "The same inside a user namespace of one's own",
        "unshare -Urm lamina-fs -f -o lowerdir=app:base,upperdir=up,workdir=work merged",
    ),
    ("Several layers, read-only", "lamina-fs -o lowerdir=/layers/c:/layers/b:/layers/a /mnt"),
    ("Podman and Buildah: in storage.conf", "[storage.options.overlay]\n    mount_program = \"/usr/bin/lamina-fs\""),
    ("From /etc/fstab or by mount(8)", "mount -t fuse.lamina-fs -o lowerdir=/layers/b:/layers/a overlay /mnt"),
];

/// Switches outside a `-o` list.
const SWITCHES: [(&str, &str, &str); 5] = [
    ("-o", "OPTION[,OPTION...]", "options, see below; may be given many times"),
    ("-f", "", "stay in the foreground"),
    ("-d, --debug", "", "stay in the foreground and print every request"),
    ("-h, --help", "", "print this text"),
    ("-V, --version", "", "print versions"),
];

/// What the first word may be instead of a mount: word, arguments, meaning.
const COMMANDS: [(&str, &str, &str); 5] = [
    ("index", "build|show|verify FILE [-o lowerdir=...]", "merged view of layers in a file; see index --help"),
    ("stats", "MOUNTPOINT [--format table|json] [--reset]", "print what a mount was asked, and how fast it answered"),
    ("usage", "MOUNTPOINT [--format table|json]", "print what the upper layer of a mount takes on disk"),
    ("completions", "bash|zsh|fish", "print completions for a shell"),
    ("man", "", "print a manual page"),
];

/// A shell for which completions can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shell {
    /// bash(1)
    Bash,
    /// zsh(1)
    Zsh,
    /// fish(1)
    Fish,
}

impl Shell {
    /// The shell of that name.
    pub fn named(name: &str) -> Option<Shell> {
        match name {
            "bash" => Some(Shell::Bash),
            "zsh" => Some(Shell::Zsh),
            "fish" => Some(Shell::Fish),
            _ => None,
        }
    }
}

/// `word=VALUE` as in a synopsis.
fn usage(option: &Description) -> String {
    match option.value {
        "" => option.word.to_owned(),
        value => format!("{}={value}", option.word),
    }
}

/// `word` or `word=`, as typed.
fn typed(option: &Description) -> String {
    match option.value {
        "" => option.word.to_owned(),
        _ => format!("{}=", option.word),
    }
}

/// The text of `--help`.
pub fn help(program: &str) -> String {
    let mut text = String::new();
    let mut line = |line: String| text.extend([line.trim_end_matches(' '), "\n"]);
    line(format!("{program}: show several directories as one, with changes kept in the topmost\n"));
    line(format!("Usage: {program} [-f] [-d] [-o OPTION[,OPTION...]]... MOUNTPOINT"));
    for (word, arguments, _) in COMMANDS {
        line(format!("       lamina-fs {word} {arguments}"));
    }
    line(String::new());
    for (switch, value, says) in SWITCHES {
        line(format!("  {:<34} {says}", format!("{switch} {value}")));
    }
    for group in &GROUPS {
        line(format!("\n{}:", group.title));
        for option in group.options {
            line(format!("  {:<34} {}", usage(option), option.text));
        }
    }
    line("\nExamples:".to_owned());
    for (title, command) in EXAMPLES {
        line(format!("  {title}:\n    {command}"));
    }
    line("\nUnmount with `fusermount3 -u MOUNTPOINT`, umount(8), or SIGTERM to the server.".to_owned());
    text
}

/// A manual page for man(1), section 1.
pub fn manual(version: &str) -> String {
    let plain = |text: &str| text.replace('\\', "\\e").replace('-', "\\-");
    let mut page = format!(".TH LAMINA\\-FS 1 \"\" \"lamina-fs {version}\" \"User Commands\"\n");
    let mut add = |text: String| page.extend([&text, "\n"]);
    add(".SH NAME\nlamina\\-fs \\- show several directories as one".to_owned());
    add(".SH SYNOPSIS\n.B lamina\\-fs\n[\\-f] [\\-d] [\\-o OPTION[,OPTION...]]... MOUNTPOINT".to_owned());
    add(".SH DESCRIPTION\nMounts a union of directories over FUSE. Lower layers are never written; the upper layer takes \
         all changes. The command line is that of\n.BR fuse\\-overlayfs (1)."
        .to_owned());
    add(".SH OPTIONS".to_owned());
    for (switch, value, says) in SWITCHES {
        add(format!(".TP\n.B {} {value}\n{}", plain(switch), plain(says)));
    }
    for group in &GROUPS {
        add(format!(".SS {}", plain(group.title)));
        for option in group.options {
            add(format!(".TP\n.B {}\n{}", plain(&usage(option)), plain(option.text)));
        }
    }
    add(".SH COMMANDS".to_owned());
    for (word, arguments, says) in COMMANDS {
        add(format!(".TP\n.B {}\n{}", plain(format!("lamina-fs {word} {arguments}").trim_end()), plain(says)));
    }
    add(".SH ENVIRONMENT\n.TP\n.B FUSE_OVERLAYFS_DISABLE_OVL_WHITEOUT\nWrite whiteouts as .wh.NAME files.".to_owned());
    add(".SH SIGNALS\n.TP\n.B SIGTERM, SIGINT, SIGHUP\nUnmount and exit.\n.TP\n.B SIGUSR1\nPrint how many inodes \
         the kernel holds, and the table of requests."
        .to_owned());
    add(".SH EXIT STATUS\n0 when the mount is live, or with \\-f after it has ended; 1 after an error, with one \
         sentence on standard error."
        .to_owned());
    add(".SH EXAMPLES".to_owned());
    for (title, command) in EXAMPLES {
        add(format!(".PP\n{}:\n.PP\n.nf\n.RS\n{}\n.RE\n.fi", plain(title), plain(command)));
    }
    add(".SH SEE ALSO\n.BR mount (8),\n.BR fusermount3 (1),\n.BR fuse (4)".to_owned());
    page
}

/// A completion script.
pub fn completions(shell: Shell) -> String {
    let options = || GROUPS.iter().flat_map(|group| group.options);
    match shell {
        Shell::Bash => {
            let words: Vec<String> = options().map(typed).collect();
            // Bash cuts words at `=` and `:` too, so the line itself tells whether `-o` is being completed. What stands
            // before the last comma is kept.
            format!(
                r#"_lamina_fs() {{
    local cur="${{COMP_WORDS[COMP_CWORD]}}" line="${{COMP_LINE:0:COMP_POINT}}" head=""
    local word="${{line##* }}"
    if [[ ${{line% *}} == *" -o" && ${{word##*,}} != *=* ]]; then
        [[ $cur == *,* ]] && head="${{cur%,*}},"
        COMPREPLY=($(compgen -P "$head" -W "{}" -- "${{cur##*,}}"))
        compopt -o nospace
    elif [[ $cur == -* ]]; then
        COMPREPLY=($(compgen -W "-o -f -d --debug -h --help -V --version" -- "$cur"))
    else
        COMPREPLY=($(compgen -d -- "$cur"))
        ((COMP_CWORD == 1)) && COMPREPLY+=($(compgen -W "{}" -- "$cur"))
    fi
}}
complete -F _lamina_fs lamina-fs
"#,
                words.join(" "),
                COMMANDS.map(|(word, ..)| word).join(" ")
            )
        }
        Shell::Zsh => {
            let mut script = "#compdef lamina-fs\n_lamina_fs_options() {\n  local -a words=(\n".to_owned();
            for option in options() {
                let text = option.text.replace('\'', "").replace(':', ";");
                extend(&mut script, format_args!("    '{}:{text}'\n", typed(option)));
            }
            script.push_str("  )\n  compset -P '*,'\n  _describe -o option words -qS ,\n}\n");
            script.push_str("_arguments '*-o[options]:options:_lamina_fs_options' '-f[stay in the foreground]' \\\n");
            script
                .push_str("  '(-d --debug)'{-d,--debug}'[print every request]' '(-h --help)'{-h,--help}'[help]' \\\n");
            script.push_str("  '(-V --version)'{-V,--version}'[versions]' \\\n");
            let commands = COMMANDS.map(|(word, ..)| word).join(" ");
            extend(
                &mut script,
                format_args!(
                    "  '1: :_alternative \"commands:command:({commands})\" \"mountpoints:mountpoint:_directories\"' \\\n"
                ),
            );
            script.push_str("  '2:mountpoint:_directories'\n");
            script
        }
        Shell::Fish => {
            let mut script = String::new();
            for option in options() {
                let text = option.text.replace('\'', "");
                let word = typed(option);
                extend(&mut script, format_args!("complete -c lamina-fs -s o -x -a '{word}' -d '{text}'\n"));
            }
            for (switch, value, says) in SWITCHES.iter().filter(|(_, value, _)| value.is_empty()) {
                let mut names = switch.split(", ");
                let short = names.next().unwrap_or_default().trim_start_matches('-');
                let long = names.next().map(|long| format!(" -l {}", long.trim_start_matches('-')));
                let long = long.unwrap_or_default();
                extend(&mut script, format_args!("complete -c lamina-fs -s {short}{long} -d '{says}{value}'\n"));
            }
            for (word, _, says) in COMMANDS {
                extend(
                    &mut script,
                    format_args!("complete -c lamina-fs -n __fish_use_subcommand -a {word} -d '{says}'\n"),
                );
            }
            script.push_str("complete -c lamina-fs -n 'not string match -q -- \"-*\" (commandline -ct)' -a '(__fish_complete_directories)'\n");
            script
        }
    }
}

fn extend(script: &mut String, text: std::fmt::Arguments<'_>) {
    script.write_fmt(text).expect("writing to a string does not fail");
}
