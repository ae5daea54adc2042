//! The calls on names: nodes of all types, umask, ACLs and their inheritance, setgid directories. Where the answer is "as on any filesystem",
//! the same script runs on a plain directory, and the two trees are compared.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use support::literal::plant;
use support::{Entry, LaminaMount, Layers, Tree, View, dir, file, machine, needs};

/// Runs `script` in a mount whose lower layer is `lower`, and in a plain directory with the same content; both must end alike.
fn same_as_on_a_plain_directory(lower: &[Entry], script: &str) {
    let run_in = |path: &Path| {
        let output = machine::output("sh", &["-euc", &format!("cd '{}'; {script}", path.display())]);
        let (stdout, stderr) = (
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        );
        assert!(output.status.success(), "{stderr}");
        (stdout, Tree::read(path))
    };
    let plain = tempfile::tempdir().unwrap();
    let there = plain.path().join("plain");
    fs::create_dir(&there).unwrap();
    plant(&there, lower);
    let (expected_output, expected) = run_in(&there);
    let layers = Layers::new(&[lower]);
    let mut mount = LaminaMount::new(&layers);
    let (output, tree) = run_in(mount.path());
    assert_eq!(output, expected_output);
    tree.assert_same(&expected, View::TIMELESS);
    mount.remount();
    Tree::read(mount.path()).assert_same(&expected, View::TIMELESS);
    layers.assert_lowers_untouched();
}

/// fuse-overlayfs 2.0 made nodes with `mode | 0755`.
#[test]
fn nodes_of_every_type_have_exact_modes() {
    needs!(machine::mounts(), machine::root());
    let script = "umask 027
        mkfifo p; mknod c c 1 3; mknod b b 7 300; mkfifo -m 000 q; mknod -m 600 d c 260 70000; chmod 6600 d
        mkdir e; mkdir -m 1777 t; : > f; ln -s nowhere s
        stat -c '%n %A %t:%T' *";
    same_as_on_a_plain_directory(&[dir("lower")], script);
}

/// fuse-overlayfs 2.0 ignored the caller's umask: 077 gave world-readable files.
#[test]
fn umask_of_the_caller_is_honoured() {
    needs!(machine::mounts());
    let script = "for mask in 000 022 077 777; do
            ( umask $mask; mkdir d$mask; : > f$mask; mkfifo p$mask )
        done
        stat -c '%n %a' *; chmod 755 d777; chmod 400 f777";
    same_as_on_a_plain_directory(&[], script);
}

#[test]
fn default_acls_are_inherited_and_beat_the_umask() {
    needs!(machine::mounts(), machine::other_ids(), machine::program("setfacl"), machine::program("getfacl"));
    let script = "umask 077
        setfacl -d -m u:1000:rwx,g:100:rx,m::rwx lower
        : > lower/f; mkdir lower/d; mkdir lower/d/e; : > lower/d/e/g; mkfifo lower/p
        mkdir new; setfacl -m d:u:1000:rw new; : > new/f
        find lower new | sort | xargs getfacl";
    same_as_on_a_plain_directory(&[dir("lower"), file("lower/old", "")], script);
}

#[test]
fn acls_are_set_changed_and_removed() {
    needs!(machine::mounts(), machine::other_ids(), machine::program("setfacl"), machine::program("getfacl"));
    let script = "setfacl -m u:1000:rw,g:100:r f; getfacl f; chmod 640 f; getfacl f
        setfacl -x u:1000 f; getfacl f; setfacl -b f; stat -c %a f; getfacl f";
    same_as_on_a_plain_directory(&[file("f", "x").mode(0o600)], script);
}

#[test]
fn acls_grant_and_deny() {
    needs!(machine::mounts(), machine::owners(), machine::program("setfacl"), machine::program("setpriv"));
    let layers = Layers::new(&[&[file("f", "x").mode(0o600), file("g", "y").mode(0o644)]]);
    let mount = LaminaMount::new(&layers);
    let (f, g) = (mount.join("f"), mount.join("g"));
    machine::run("setfacl", &["-m", "u:1000:r", f.to_str().unwrap()]);
    machine::run("setfacl", &["-m", "u:1000:-", g.to_str().unwrap()]);
    let reads = |id, path: &Path| machine::shell_as(id, &format!("cat '{}'", path.display())).status.success();
    assert!(reads(1000, &f) && !reads(1001, &f));
    assert!(!reads(1000, &g) && reads(1001, &g));
}

#[test]
fn setgid_directory_hands_its_group_down() {
    needs!(machine::mounts(), machine::owners());
    let script = "umask 022; : > d/f; mkdir d/e; : > d/e/g; mkfifo d/p; ln -s x d/s; stat -c '%n %a %u:%g' d/* d/e/*";
    same_as_on_a_plain_directory(&[dir("d").owner(5, 100).mode(0o2775)], script);
}

#[test]
fn new_objects_belong_to_the_caller() {
    needs!(machine::mounts(), machine::owners(), machine::program("setpriv"));
    let layers = Layers::new(&[&[dir("d").mode(0o777), dir("g").owner(0, 100).mode(0o2777)]]);
    let mount = LaminaMount::new(&layers);
    let script = format!(
        "cd '{}'; : > d/f; mkdir d/e; ln -s x d/s; mkfifo d/p; : > g/f; : > d/x; chmod 2755 d/x",
        mount.path().display()
    );
    let output = machine::shell_as(1000, &script);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for name in ["d/f", "d/e", "d/s", "d/p"] {
        let stat = mount.join(name).symlink_metadata().unwrap();
        assert_eq!((stat.uid(), stat.gid()), (1000, 1000), "{name}");
    }
    assert_eq!(mount.join("g/f").metadata().unwrap().gid(), 100);
}

#[test]
fn renames_and_exchanges_do_what_they_do_anywhere() {
    needs!(machine::mounts());
    let script = "mv a d/; mv d/x y; mv -n y b 2>/dev/null || true; ln b d/b2; mv d/b2 c; mkdir n; mv n d/n; rm -r d/n; mv -T s d/s; : > s";
    let lower = [file("a", "a"), file("b", "b"), dir("d"), file("d/x", "x"), support::symlink("s", "b")];
    same_as_on_a_plain_directory(&lower, script);
}

/// As the kernel's overlayfs without redirect_dir: EXDEV, on which mv(1) copies.
#[test]
fn rename_of_a_lower_directory_is_a_copy_for_mv() {
    needs!(machine::mounts());
    let layers = Layers::new(&[&[dir("d"), file("d/f", "x")]]);
    let mount = LaminaMount::new(&layers);
    let refused = fs::rename(mount.join("d"), mount.join("e")).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EXDEV));
    drop(mount);
    same_as_on_a_plain_directory(&[dir("d"), file("d/f", "x"), dir("d/e")], "mv d moved; mkdir d; : > d/g");
}

/// What package managers do to a tree, in short.
#[test]
fn an_unpacked_archive_is_the_same_archive() {
    needs!(machine::mounts(), machine::owners(), machine::program("tar"));
    let script =
        "tar -cf all.tar d f; mkdir out; tar -xpf all.tar -C out; rm -r d; tar -xpf all.tar; rm all.tar; find . | sort";
    let lower = [
        dir("d").mode(0o1777),
        file("d/setuid", "s").mode(0o4755),
        support::fifo("d/p"),
        support::symlink("d/s", "x"),
        file("f", "f").owner(9, 9),
    ];
    same_as_on_a_plain_directory(&lower, script);
}
