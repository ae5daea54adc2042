//! Without privilege: owners and devices are kept in an attribute; in a user namespace with a range of ids, they are the files' own.

use support::{debian, lamina, literal, machine, needs};

use crate::command::Images;

/// A user that owns nothing.
const USER: u32 = 64_321;

#[test]
fn owners_and_devices_are_kept_without_privilege() {
    needs!(debian::missing(), machine::program("setpriv"));
    let images = Images::new();
    let home = images.scratch("home");
    std::fs::create_dir(&home).expect("mkdir");
    let layout = images.scratch("layout");
    machine::run("cp", &["-r".as_ref(), debian::layout().as_os_str(), layout.as_os_str()]);
    for path in [images.scratch(""), home.clone(), layout.clone()] {
        machine::run("chown", &["-R", &USER.to_string(), path.to_str().expect("UTF-8")]);
    }
    // The build's own directory is root's: the user gets a copy of the program.
    let program = home.join("program");
    std::fs::copy(lamina::snapshotter_binary(), &program).expect("copy");
    let run = |arguments: &str| {
        let store = home.join("store");
        let output =
            machine::shell_as(USER, &format!("{} image --root {} {arguments}", program.display(), store.display()));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    run(&format!("load {} --tag app", layout.display()));
    let inspected: serde_json::Value = serde_json::from_str(&run("inspect app --format json")).expect("JSON");
    let layer = |at: usize| {
        let directory = inspected["layers"][at]["directory"].as_str().expect("directory");
        std::path::PathBuf::from(directory)
    };
    let kept = |path: &std::path::Path| {
        let value = literal::xattr(path, "user.containers.override_stat").unwrap_or_default();
        String::from_utf8(value).expect("text")
    };
    let second = layer(1);
    assert_eq!(kept(&second.join("srv/app/2")), "1000:2000:0644:file");
    assert_eq!(kept(&second.join("srv/app/3")), "0:0:4755:file");
    assert_eq!(kept(&second.join("srv/app/null")), "0:0:0644:char-1-3");
    assert_eq!(kept(&layer(0).join(".")), "0:0:0755:dir");
}

/// Runs the command as root of a user namespace that maps 65536 ids from 100000 on, as a range of /etc/subuid does.
const IN_NAMESPACE: &str = "
    cd \"$HOME_DIR\"; mkfifo ready hold
    unshare --user sh -c 'echo >ready; read -r line <hold' &
    holder=$!; read -r line <ready
    echo '0 100000 65536' >/proc/$holder/uid_map; echo '0 100000 65536' >/proc/$holder/gid_map
    status=0
    nsenter --user --target $holder --setuid 0 --setgid 0 \"$HOME_DIR/program\" image --root \"$HOME_DIR/store\" import \"$HOME_DIR/$TAR\" \"$TAR\" || status=$?
    echo >hold; wait; rm ready hold; exit $status";

#[test]
fn owners_are_mapped_in_a_user_namespace() {
    needs!(machine::root(), machine::program("nsenter"));
    let images = Images::new();
    let home = images.scratch("home");
    machine::shell(&format!(
        "mkdir -p {0}/root && cd {0} && chmod 755 .. . && mkdir store && chown 100000:100000 store && cp {1} program
         echo x >root/own; chown 1000:2000 root/own; echo x >root/far; chown 70000:0 root/far; mknod root/null c 1 3
         for name in own far null; do tar -C root -cf $name $name; done",
        home.display(),
        lamina::snapshotter_binary().display()
    ));
    let import = |name: &str| {
        let output = machine::output(
            "env",
            &[&format!("HOME_DIR={}", home.display()), &format!("TAR={name}"), "sh", "-euc", IN_NAMESPACE],
        );
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(import("own"), (true, String::new()));
    let (far, null) = (import("far"), import("null"));
    assert!(!far.0 && far.1.contains("\"far\"") && far.1.contains("70000:0 is not mapped"), "{}", far.1);
    assert!(!null.0 && null.1.contains("\"null\"") && null.1.contains("may not make"), "{}", null.1);
    let found = machine::shell(&format!("find {}/store/snapshots -name own -printf '%U:%G\\n'", home.display()));
    assert_eq!(found, "101000:102000\n");
}
