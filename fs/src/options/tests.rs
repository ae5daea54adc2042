//! Tests of the command line: what callers write, and properties of the grammar.

use super::*;
use nix::mount::MsFlags;
use proptest::prelude::*;

const ROOT: Environment = Environment { name: ProgramName::LaminaFs, root: true, dot_whiteouts: false };
const USER: Environment = Environment { root: false, ..ROOT };

fn parse_in(environment: &Environment, arguments: &[&str]) -> Result<Options, OptionError> {
    match Options::parse(arguments.iter().map(OsString::from), environment)? {
        Invocation::Mount(options) => Ok(*options),
        other => panic!("not a mount: {other:?}"),
    }
}

fn parse(arguments: &[&str]) -> Options {
    parse_in(&ROOT, arguments).unwrap()
}

fn refusal(list: &str) -> String {
    parse_in(&ROOT, &["-o", list, "/mnt"]).unwrap_err().to_string()
}

fn upper_and_work(upper: &str, work: &str) -> Option<UpperConfig> {
    Some(UpperConfig { upper: upper.into(), work: work.into() })
}

#[test]
fn containers_storage_line_is_understood() {
    let list = "lowerdir=/h/l/AAA:/h/l/BBB,upperdir=/h/x/diff,workdir=/h/x/work,volatile,\
                context=\"system_u:object_r:container_file_t:s0:c1,c2\",xattr_permissions=2";
    let options = parse(&["-o", list, "/h/x/merged"]);
    assert_eq!(options.lowers, [PathBuf::from("/h/l/AAA"), PathBuf::from("/h/l/BBB")]);
    assert_eq!(options.upper, upper_and_work("/h/x/diff", "/h/x/work"));
    assert_eq!(options.durability, Durability::Volatile);
    assert_eq!(options.override_stat, OverrideStat::User);
    assert_eq!(options.warnings, Vec::<String>::new());
}

#[test]
fn mount_fuse3_line_is_understood() {
    let list = "workdir=/w,upperdir=/u,lowerdir=/a,rw,dev,suid";
    let options = parse_in(&USER, &["overlay", "/target", "-o", list]).unwrap();
    assert_eq!(options.mountpoint, PathBuf::from("/target"));
    assert_eq!(options.mount.flags, MsFlags::MS_NOATIME);
    assert_eq!(options.mount.source(), "lamina-fs");
}

#[test]
fn many_lists_in_any_spelling_add_up() {
    let options = parse(&["-oworkdir=/w", "-f", "-o", "upperdir=/u", "/mnt", "-olowerdir=/a"]);
    assert_eq!(options.upper, upper_and_work("/u", "/w"));
    assert_eq!(options.ground, Ground::Foreground);
}

#[test]
fn defaults_depend_on_the_user() {
    let (root, user) = (parse(&["-olowerdir=/a", "/m"]), parse_in(&USER, &["-olowerdir=/a", "/m"]));
    assert_eq!(root.mount.access, Access::Everyone);
    assert_eq!(root.mount.flags, MsFlags::MS_NOATIME | MsFlags::MS_RDONLY);
    let user = user.unwrap();
    assert_eq!(user.mount.access, Access::Owner);
    assert!(user.mount.flags.contains(MsFlags::MS_NOSUID | MsFlags::MS_NODEV));
}

#[test]
fn unknown_words_are_warned_about_and_ignored() {
    let options = parse(&["-o", "lowerdir=/a,frobnicate=3,lazytime", "--frob", "/mnt"]);
    let expected = ["frobnicate=3", "lazytime", "--frob"];
    let expected = expected.map(|word| format!("unknown argument ignored: {word}"));
    assert_eq!(options.warnings, expected);
}

#[test]
fn escaped_colons_and_commas_belong_to_the_path() {
    let options = parse(&["-o", r"lowerdir=/a\:b:/c\,d:/e\\:/f\g", "/mnt"]);
    assert_eq!(options.lowers, ["/a:b", "/c,d", r"/e\", r"/f\g"].map(PathBuf::from));
}

#[test]
fn quotes_keep_commas_only_where_they_close() {
    let options = parse(&["-o", "lowerdir=\"/a,b:/c\",upperdir=\"/u,workdir=/w", "/mnt"]);
    assert_eq!(options.lowers, ["/a,b", "/c"].map(PathBuf::from));
    assert_eq!(options.upper, upper_and_work("\"/u", "/w"));
}

#[test]
fn every_described_option_is_taken_without_a_warning() {
    for option in table::GROUPS.iter().flat_map(|group| group.options) {
        let value = match option.word {
            "uidmapping" | "gidmapping" => "0:1:2",
            "redirect_dir" | "xino" => "off",
            "io" => "passthrough",
            _ => "1",
        };
        let word = if option.value.is_empty() { option.word.to_owned() } else { format!("{}={value}", option.word) };
        let list = format!("lowerdir=/a,upperdir=/u,workdir=/w,{word}");
        let options = parse_in(&ROOT, &["-o", &list, "/mnt"]).unwrap();
        assert_eq!(options.warnings, Vec::<String>::new(), "{word}");
        assert!(help::help("lamina-fs").contains(option.word), "{word}");
    }
}

#[test]
fn pass_through_words_are_taken_without_a_warning() {
    let list = "lowerdir=/a,allow_root,allow_other,default_permissions,suid,nosuid,dev,nodev,exec,\
                noexec,atime,noatime,diratime,nodiratime,relatime,splice_read,splice_write,splice_move,\
                kernel_cache,max_write=131072,max_idle_threads=10,fsname=x,subtype=y,ro,rw,x-systemd.automount";
    assert_eq!(parse(&["-o", list, "/mnt"]).warnings, Vec::<String>::new());
}

#[test]
fn options_without_effect_are_warned_about() {
    let options = parse_in(&USER, &["-olowerdir=/a,workdir=/w,auto_unmount", "/mnt"]).unwrap();
    assert_eq!(options.warnings.len(), 2);
    let options = parse_in(&USER, &["-olowerdir=/a,auto_unmount,allow_root", "/mnt"]).unwrap();
    assert_eq!(options.warnings, Vec::<String>::new());
}

#[test]
fn nonsense_gets_a_sentence() {
    assert!(parse_in(&ROOT, &["-olowerdir=/a"]).unwrap_err().to_string().contains("mountpoint"));
    assert!(parse_in(&ROOT, &["/mnt"]).unwrap_err().to_string().contains("lowerdir="));
    assert!(parse_in(&ROOT, &["/mnt", "-o"]).unwrap_err().to_string().contains("-o stands alone"));
    assert!(refusal("lowerdir=/a::/b").contains("empty path"));
    assert!(refusal("lowerdir=").contains("lowerdir=VALUE"));
    assert!(refusal("lowerdir=//plugin/data/path").contains("plugin"));
    assert!(refusal("lowerdir=/a,plugins=a.so").contains("not supported"));
    assert!(refusal("lowerdir=/a,upperdir=/u").contains("workdir"));
    assert!(refusal("lowerdir=/a,redirect_dir=on").contains("only supports redirect_dir=off"));
    assert!(refusal("lowerdir=/a,uidmapping=0:x:1").contains("uidmapping"));
    assert!(refusal("lowerdir=/a,squash_to_uid=-1").contains("number from 0"));
    assert!(refusal("lowerdir=/a,timeout=-1").contains("seconds"));
    assert!(refusal("lowerdir=/a,timeout=nan").contains("seconds"));
    assert!(refusal("lowerdir=/a,writeback=2").contains("0 or 1"));
    assert!(refusal("lowerdir=/a,io=direct").contains("cached or passthrough"));
    assert!(refusal("lowerdir=/a,io=passthrough,writeback=1").contains("exclude each other"));
    assert!(refusal("lowerdir=/a,writeback,io=passthrough").contains("leave one of them out"));
    assert!(refusal("lowerdir=/a,xattr_permissions=3").contains("0, 1 or 2"));
}

#[test]
fn name_of_the_program_decides_what_the_mount_table_shows() {
    assert_eq!(ProgramName::of(OsStr::new("/usr/bin/fuse-overlayfs")), ProgramName::FuseOverlayfs);
    assert_eq!(ProgramName::of(OsStr::new("lamina-fs")), ProgramName::LaminaFs);
    let environment = Environment { name: ProgramName::FuseOverlayfs, ..ROOT };
    let options = parse_in(&environment, &["-olowerdir=/a", "/mnt"]).unwrap();
    assert_eq!((options.mount.source(), options.mount.subtype.as_str()), ("fuse-overlayfs", "fuse-overlayfs"));
}

/// Paths of any bytes but NUL. A layer that begins with `//` is a plugin's.
fn any_path() -> impl Strategy<Value = PathBuf> {
    proptest::collection::vec(prop_oneof![1u8..=255, Just(b':'), Just(b','), Just(b'\\'), Just(b'"')], 1..12)
        .prop_filter("plugin", |bytes| !bytes.starts_with(b"//"))
        .prop_map(|bytes| PathBuf::from(OsString::from_vec(bytes)))
}

proptest! {
    #[test]
    fn parser_never_panics(arguments in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..6)) {
        let arguments = arguments.into_iter().map(OsString::from_vec);
        if let Err(error) = Options::parse(arguments, &ROOT) {
            prop_assert!(error.to_string().len() > 20);
        }
    }

    #[test]
    fn parser_never_panics_on_lists_that_look_right(list in "(lowerdir|context|timeout|upperdir|fsname|,|=|:|\"|\\\\|/a|1|-){0,30}") {
        if let Err(error) = Options::parse(["-o".into(), list.into(), "/mnt".into()], &ROOT) {
            prop_assert!(error.to_string().len() > 20);
        }
    }

    #[test]
    fn options_survive_their_own_string(
        lowers in proptest::collection::vec(any_path(), 1..4),
        upper in proptest::option::of((any_path(), any_path())),
        durability in prop_oneof![Just(Durability::Synced), Just(Durability::Unsynced), Just(Durability::Volatile)],
        timeout in 0u32..1_000_000,
        (squash, static_nlink, writeback, many) in any::<(Option<u16>, bool, bool, bool)>(),
        words in proptest::sample::subsequence(vec!["nosuid", "relatime", "nodev", "allow_root", "noexec", "ro", "noatime"], 0..7),
    ) {
        let list = ["lowerdir=/a"].into_iter().chain(words).collect::<Vec<_>>().join(",");
        let mut options = parse(&["-o", &list, "/mnt"]);
        options.lowers = lowers;
        options.upper = upper.map(|(upper, work)| UpperConfig { upper, work });
        options.durability = durability;
        options.timeout = Duration::from_millis(timeout.into());
        options.squash_uid = squash.map(u32::from);
        (options.static_nlink, options.writeback) = (static_nlink, writeback);
        options.io = if writeback || many { Io::Cached } else { Io::Passthrough };
        options.threads = if many { Threads::Many } else { Threads::One };
        let arguments = ["-o".into(), options.to_option_string(), "/mnt".into()];
        let Invocation::Mount(again) = Options::parse(arguments, &ROOT).unwrap() else { unreachable!() };
        prop_assert_eq!(*again, options);
    }
}
