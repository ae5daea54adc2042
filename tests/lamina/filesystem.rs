//! diff, commit, cp, df: the filesystem's own verbs, against mounts of the same layers.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use support::tree::{Tree, View};
use support::{KernelOverlay, debian, machine, needs};

use crate::front::Front;

fn missing() -> Option<String> {
    debian::missing().or_else(KernelOverlay::missing).or_else(machine::fuse)
}

/// Everything that a layer can say.
const CHANGES: &str = "
    echo new >srv/new; echo more >>etc/passwd; rm srv/app/1; rm -r srv/app/8
    rm srv/app/2; mkdir srv/app/2; echo inside >srv/app/2/file
    mkdir -p deep/er/still; ln etc/passwd etc/passwd-again; ln -s /etc/shadow deep/link
    chown 33:44 srv/app/3; chmod 4711 srv/app/5; mkfifo deep/pipe; mknod deep/zero c 1 5
    rm -r opt/third; mkdir opt/third; echo other >opt/third/data
    setfattr -n user.own -v value srv/new; truncate -s 1M deep/hole
    touch -d '2003-02-01 00:00:00 UTC' srv/new";

#[test]
fn diff_names_what_was_added_changed_and_deleted() {
    needs!(missing());
    let front = Front::with_image();
    let id = front.container("web", "app:1");
    assert_eq!(front.run(&["diff", "web"]), "");
    front.change("web", CHANGES);
    let lines = front.run(&["diff", &id[..12]]);
    let lines: Vec<&str> = lines.lines().collect();
    for line in [
        "A /deep",
        "A /deep/er",
        "A /deep/er/still",
        "A /deep/link",
        "A /deep/pipe",
        "A /deep/zero",
        "A /deep/hole",
        "C /etc",
        "C /etc/passwd",
        "A /etc/passwd-again",
        "C /opt",
        "C /opt/third",
        "C /opt/third/data",
        "C /srv",
        "C /srv/app",
        "D /srv/app/1",
        "C /srv/app/2",
        "A /srv/app/2/file",
        "C /srv/app/3",
        "C /srv/app/5",
        "D /srv/app/8",
        "A /srv/new",
    ] {
        assert!(lines.contains(&line), "{line} is missing in {lines:?}");
    }
    assert_eq!(lines.len(), 22, "{lines:?}");
    let objects = front.json_lines(&["diff", "--format", "json", "web"]);
    assert_eq!(objects.len(), lines.len());
    assert!(objects.iter().any(|object| object["Path"] == "/srv/app/1" && object["Kind"] == 2));
}

#[test]
fn a_commit_shows_what_the_container_showed() {
    needs!(missing());
    let front = Front::with_image();
    front.container("web", "app:1");
    front.change("web", CHANGES);
    let change = |text: &'static str| ["-c", text];
    let edits = [change("ENV MODE=committed"), change("CMD [\"/bin/true\"]"), change("LABEL who=me")].concat();
    let arguments = [&["commit", "-a", "somebody", "-m", "a message"][..], &edits, &["web", "app:2"]].concat();
    let id = front.run(&arguments);

    let parts = front.parts("web");
    let layers: Vec<_> = std::iter::once(parts.upper).chain(parts.lowers).collect();
    // Ours, as the kernel's shows the marks that a user's layer has; what comes of the commit is for the kernel to read.
    let before = front.look("before", &layers);
    front.container("again", "app:2");
    let committed = front.parts("again");
    let after = front.overlay("after", &committed.lowers);
    let (before, after) = (Tree::read_despite_d_ino(before.path()), Tree::read_despite_d_ino(after.path()));
    before.assert_same(&after, View { nlinks: false, ..View::ALL });
    assert!(after.0.contains_key("srv/app/2/file") && !after.0.contains_key("srv/app/1"));
    assert_eq!(front.run(&["diff", "again"]), "", "a new container has changed nothing");

    let inspected = &front.json(&["inspect", "app:2"])[0];
    assert_eq!(inspected["Id"].as_str(), Some(id.trim()));
    assert_eq!(inspected["Author"], "somebody");
    assert_eq!(inspected["Config"]["Cmd"], serde_json::json!(["/bin/true"]));
    assert_eq!(inspected["Config"]["Labels"]["who"], "me");
    assert!(inspected["Config"]["Env"].as_array().is_some_and(|list| list.contains(&"MODE=committed".into())));
    let newest = &front.json_lines(&["history", "--format", "json", "app:2"])[0];
    assert_eq!((&newest["CreatedBy"], &newest["Comment"]), (&"sh -c change things".into(), &"a message".into()));
}

#[test]
fn the_same_changes_make_the_same_layer_and_others_take_the_image() {
    needs!(missing(), machine::program("skopeo"), machine::program("umoci"));
    let front = Front::with_image();
    front.container("web", "app:1");
    front.change("web", CHANGES);
    let layers = |name: &str| front.json(&["inspect", name])[0]["RootFS"]["Layers"].clone();
    front.run(&["commit", "web", "one"]);
    front.run(&["commit", "-m", "later", "web", "two"]);
    assert_eq!(layers("one"), layers("two"));
    let unnamed = front.run(&["commit", "web"]);
    let name = format!("localhost/committed:{}", &unnamed.trim()[7..19]);
    assert_eq!(layers(&name), layers("one"));

    let layout = front.scratch("layout");
    let path = layout.to_str().expect("UTF-8");
    front.run(&["save", "--format", "oci-dir", "-o", path, "one"]);
    let seen: Value =
        serde_json::from_str(&machine::run("skopeo", &["inspect", "--config", &format!("oci:{path}")])).expect("JSON");
    assert_eq!(seen["rootfs"]["diff_ids"], layers("one"));
    let bundle = front.scratch("bundle");
    machine::run("umoci", &["unpack", "--image", &format!("{path}:latest"), bundle.to_str().expect("UTF-8")]);
    assert!(bundle.join("rootfs/srv/app/2/file").exists() && !bundle.join("rootfs/srv/app/1").exists());
    assert_eq!(fs::metadata(bundle.join("rootfs/srv/app/5")).expect("stat").mode() & 0o7777, 0o4711);
}

#[test]
fn a_failed_commit_leaves_the_store_as_it_was() {
    needs!(missing());
    let front = Front::with_image();
    front.container("web", "app:1");
    front.change("web", "echo x >srv/new");
    // What the kernel's overlayfs writes for a renamed directory: the layer alone does not hold the content.
    let upper = front.parts("web").upper;
    machine::run(
        "setfattr",
        &["-n", "trusted.overlay.redirect", "-v", "/elsewhere", upper.join("srv").to_str().expect("UTF-8")],
    );
    let before = front.json(&["df", "--format", "json"]);
    let refused = front.refusal(&["commit", "web", "app:2"]);
    assert!(refused.contains("redirect_dir"), "{refused}");
    assert_eq!(front.json(&["df", "--format", "json"]), before);
    assert_eq!(front.json_lines(&["images", "--format", "json"]).len(), 1);
}

#[test]
fn files_are_copied_out_by_dockers_rules() {
    needs!(missing());
    let front = Front::with_image();
    front.container("web", "app:1");
    front.change("web", CHANGES);
    let to = front.scratch("to");
    fs::create_dir(&to).expect("mkdir");
    let cp =
        |source: &str, name: &str| front.run(&["cp", &format!("web:{source}"), to.join(name).to_str().expect("UTF-8")]);
    cp("/srv/new", "file");
    assert_eq!(fs::read_to_string(to.join("file")).expect("read"), "new\n");
    cp("/srv/new", ".");
    assert!(to.join("new").is_file(), "into a directory by its own name");
    cp("/srv/app", "app");
    assert!(to.join("app/2/file").is_file() && !to.join("app/1").exists());
    cp("srv/app", "app");
    assert!(to.join("app/app/2/file").is_file(), "into a directory that is there");
    fs::create_dir(to.join("content")).expect("mkdir");
    cp("/srv/app/2/.", "content");
    assert!(to.join("content/file").is_file());
    let copied = fs::metadata(to.join("app/5")).expect("stat");
    assert_eq!(copied.permissions().mode() & 0o7777, 0o711, "without -a nobody becomes another user by it");
    front.run(&["cp", "-a", "web:/srv/app/3", to.join("kept").to_str().expect("UTF-8")]);
    let kept = fs::metadata(to.join("kept")).expect("stat");
    assert_eq!((kept.uid(), kept.gid()), (33, 44));
    let listed = machine::shell(&format!(
        "LAMINA_STORE={} {} cp web:/srv/app/2 - | tar -tf -",
        front.root().display(),
        support::lamina::front_end().display()
    ));
    assert_eq!(listed, "2/\n2/file\n");
    for (source, name, part) in [
        ("/srv/none", "x", "Could not find the file /srv/none"),
        ("/srv/app", "file", "cannot take the place of a file"),
        ("/srv/new", "none/", "does not exist"),
        ("/srv/new", "none/x", "does not exist"),
        ("/srv/new/x", "y", "not a directory"),
        ("/srv/new/.", "y", "not a directory"),
    ] {
        let refused = front.refusal(&["cp", &format!("web:{source}"), to.join(name).to_str().expect("UTF-8")]);
        assert!(refused.contains(part), "{refused}");
    }
}

#[test]
fn no_link_leads_a_copy_out_of_the_container() {
    needs!(missing());
    let front = Front::with_image();
    front.container("web", "app:1");
    let secret = front.scratch("secret");
    fs::write(&secret, "the host's").expect("write");
    let path = secret.to_str().expect("UTF-8").to_owned();
    let up = "../".repeat(30);
    front.change("web", &format!("ln -s {path} out; ln -s {up}{path} up; ln -s loop loop; ln -s / slash; mkdir -p {0}; echo inside >{0}/secret", &front.scratch("").display().to_string()[1..]));
    let to = front.scratch("copied");
    for source in ["/out", "/up", "/slash/slash/out", "/../../out"] {
        front.run(&["cp", "-L", &format!("web:{source}"), to.to_str().expect("UTF-8")]);
        assert_eq!(fs::read_to_string(&to).expect("read"), "inside\n", "{source}");
    }
    let refused = front.refusal(&["cp", "-L", "web:/loop", to.to_str().expect("UTF-8")]);
    assert!(refused.contains("links"), "{refused}");
    fs::remove_file(&to).expect("unlink");
    front.run(&["cp", "web:/out", to.to_str().expect("UTF-8")]);
    assert_eq!(fs::read_link(&to).expect("a link"), Path::new(&path), "a link is copied as one");
    assert_eq!(fs::read_to_string(&secret).expect("read"), "the host's");
}

#[test]
fn sizes_add_up_and_a_prune_frees_what_was_announced() {
    needs!(missing());
    let front = Front::with_image();
    front.container("web", "app:1");
    front.change("web", "head -c 3000000 /dev/urandom >srv/big");
    front.run(&["commit", "web", "app:2"]);
    let number = |value: &Value| value.as_u64().expect("a number");
    let space = || front.json(&["df", "--format", "json"]);
    let now = space();
    let rows =
        number(&now["Layers"]["SizeBytes"]) + number(&now["Blobs"]["SizeBytes"]) + number(&now["ContainersSizeBytes"]);
    assert_eq!(rows, number(&now["SizeBytes"]));
    assert_eq!(number(&now["ReclaimableBytes"]), 0);
    let images = now["Images"].as_array().expect("images");
    let unique: u64 = images.iter().map(|image| number(&image["UniqueSizeBytes"])).sum();
    let shared = number(&images[0]["SharedSizeBytes"]);
    assert_eq!(unique + shared, number(&now["Layers"]["SizeBytes"]), "what two images share is there once");
    assert!(number(&now["Containers"][0]["SizeBytes"]) >= 3_000_000);
    assert!(number(&images[1]["UniqueSizeBytes"]) >= 3_000_000);

    front.run(&["rmi", "--no-prune", "app:2"]);
    let announced = number(&space()["ReclaimableBytes"]);
    assert!(announced >= 3_000_000, "{announced}");
    let freed = front.json(&["prune", "-f", "--format", "json"]);
    assert_eq!(number(&freed["SpaceReclaimedBytes"]), announced);
    let after = space();
    assert_eq!(number(&after["SizeBytes"]) + announced, number(&now["SizeBytes"]));
    assert_eq!(number(&after["ReclaimableBytes"]), 0);
    assert!(front.run(&["df"]).lines().count() == 5 && front.run(&["df", "-v"]).contains("UNIQUE SIZE"));
}

#[test]
fn an_image_and_a_container_are_shown_at_a_directory_and_kept_meanwhile() {
    needs!(missing());
    let front = Front::with_image();
    front.container("web", "app:1");
    front.change("web", "echo new >srv/new; rm srv/app/1");
    let at = front.scratch("looked at");
    let dir = at.to_str().expect("UTF-8");
    assert_eq!(front.run(&["mount", "web", dir]).trim(), dir);
    assert!(at.join("srv/new").exists() && !at.join("srv/app/1").exists());
    assert_eq!(fs::write(at.join("srv/other"), "").expect_err("read-only").raw_os_error(), Some(libc::EROFS));
    let refused = front.refusal(&["mount", "app:1", dir]);
    assert!(refused.contains("is mounted already"), "{refused}");
    front.run(&["umount", dir]);
    assert!(front.refusal(&["umount", dir]).contains("nothing of Lamina is mounted"));

    let by_name = front.run(&["mount", "app:1"]);
    let by_name = Path::new(by_name.trim()).to_owned();
    assert!(by_name.join("srv/app/1").exists() && !by_name.join("srv/new").exists());
    front.run(&["rmi", "-f", "app:1"]);
    front.run(&["prune", "-f"]);
    let read = fs::read(by_name.join("opt/third/data")).expect("the layers stay while they are mounted");
    assert_eq!(read.len(), 6_000_000);
    front.run(&["umount", "app:1"]);
    assert!(!by_name.exists());
    let images = support::machine::run("ls", &[front.root().join("views").as_os_str()]);
    assert_eq!(images, "");
    assert!(
        Command::new(support::lamina::snapshotter_binary())
            .args(["fsck", "--root"])
            .arg(front.root())
            .status()
            .expect("fsck")
            .success()
    );
}

/// Everything of this machine that a container needs, for real: a run, and what is done with it while it runs and afterwards.
#[test]
fn a_container_that_ran_is_read_written_and_committed() {
    needs!(missing(), machine::root());
    let front = Front::with_image();
    front.run(&["run", "--name", "web", "app:1", "sh", "-c", "echo ran >/srv/ran; rm /srv/app/3"]);
    let lines = front.run(&["diff", "web"]);
    assert!(lines.contains("A /srv/ran\n") && lines.contains("D /srv/app/3\n"), "{lines}");
    let from = front.scratch("from");
    machine::shell(&format!(
        "mkdir -p {0}/sub; echo host >{0}/sub/file; ln -s sub/file {0}/link; chmod 4755 {0}/sub/file",
        from.display()
    ));
    let source = from.to_str().expect("UTF-8");
    let tell = |arguments: &[&str]| assert_eq!(front.run(arguments), "");
    let read = |container: &str, path: &str| {
        let to = front.scratch("read");
        front.run(&["cp", &format!("{container}:{path}"), to.to_str().expect("UTF-8")]);
        fs::read_to_string(to).expect("read")
    };
    let check = |name: &str| {
        tell(&["cp", source, &format!("{name}:/srv/made")]);
        assert_eq!(read(name, "/srv/made/sub/file"), "host\n");
        tell(&["cp", source, &format!("{name}:/srv")]);
        assert_eq!(read(name, "/srv/from/sub/file"), "host\n");
        tell(&["cp", &format!("{source}/sub/."), &format!("{name}:/srv")]);
        assert_eq!(read(name, "/srv/file"), "host\n");
        tell(&["cp", &format!("{source}/sub/file"), &format!("{name}:/srv/file")]);
        for (to, part) in
            [("/srv/none/x", "does not exist"), ("/srv/none/", "does not exist"), ("/srv/file/x", "is a file")]
        {
            let refused = front.refusal(&["cp", &format!("{source}/sub/file"), &format!("{name}:{to}")]);
            assert!(refused.contains(part), "{to}: {refused}");
        }
        let refused = front.refusal(&["cp", source, &format!("{name}:/srv/file")]);
        assert!(refused.contains("cannot take the place of a file"), "{refused}");
    };
    check("web");
    let running = front.run(&[
        "run",
        "-d",
        "app:1",
        "sh",
        "-c",
        "ln -s /proc/1/root/../../../.. /srv/out; echo up >/srv/up; exec sleep 1000",
    ]);
    let running = running.trim();
    check(running);
    let said = front.run(&[
        "exec",
        running,
        "sh",
        "-c",
        "ls -ln /srv/made/sub/file; until [ -s /srv/up ]; do :; done; cat /srv/up",
    ]);
    assert!(said.starts_with("-rwxr-xr-x 1 0 0 ") && said.ends_with("up\n"), "{said}");
    front.run(&["commit", running, "app:running"]);
    let inspected = &front.json(&["inspect", running])[0]["State"];
    assert_eq!(
        (&inspected["Status"], &inspected["Paused"]),
        (&"running".into(), &false.into()),
        "it goes on after the commit"
    );
    front.run(&["rm", "-f", running]);
    assert_eq!(front.run(&["run", "--rm", "app:running", "cat", "/srv/up", "/srv/made/sub/file"]), "up\nhost\n");
    front.run(&["commit", "web", "app:2"]);
    assert_eq!(front.run(&["run", "--rm", "app:2", "cat", "/srv/ran"]), "ran\n");
    front.run(&["rm", "web"]);
}

/// A user that owns nothing, and has no range of ids.
const USER: u32 = 64_322;

#[test]
fn a_user_without_privilege_commits_the_owners_of_the_image() {
    needs!(missing(), machine::root(), machine::program("setpriv"));
    let front = Front::new();
    let home = front.scratch("home");
    fs::create_dir(&home).expect("mkdir");
    for program in [support::lamina::front_end(), support::lamina::binary()] {
        fs::copy(program, home.join(program.file_name().expect("a name"))).expect("copy");
    }
    let layout = home.join("layout");
    machine::run("cp", &["-r".as_ref(), debian::layout().as_os_str(), layout.as_os_str()]);
    machine::shell(&format!(
        "chmod 755 {0}; chown -R {USER}:{USER} {0}/home; mount -t tmpfs none /mnt
         mknod -m 666 /mnt/fuse c 10 229; mount --bind /mnt/fuse /dev/fuse",
        front.scratch("").display()
    ));
    let run = |command: &str| {
        let script = format!(
            "cd {0}; export HOME={0} LAMINA_STORE={0}/store; unset XDG_RUNTIME_DIR LAMINA_FS; {command}",
            home.display()
        );
        let output = machine::shell_as(USER, &script);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    run("./lamina load -q -i layout --tag app:1");
    run("./lamina run --name web app:1 sh -c 'echo more >>/srv/app/2; echo new >/srv/new; rm /srv/app/5'");
    let changed = run("./lamina diff web");
    for line in ["C /srv/app/2", "A /srv/new", "D /srv/app/5"] {
        assert!(changed.lines().any(|found| found == line), "{line}: {changed}");
    }
    run("./lamina commit web app:2; ./lamina create --name again app:2; ./lamina save -o saved.tar app:2");
    for container in ["web", "again"] {
        let listed = run(&format!("./lamina cp {container}:/srv - | tar --numeric-owner -tvf -"));
        let owner = |name: &str| {
            let line = listed.lines().find(|line| line.ends_with(name)).unwrap_or_else(|| panic!("{name}: {listed}"));
            line.split_whitespace().nth(1).map(str::to_owned)
        };
        assert_eq!(owner(" srv/app/2").as_deref(), Some("1000/2000"), "{container}");
        assert_eq!(owner(" srv/new").as_deref(), Some("0/0"), "{container}");
        assert_eq!(owner(" srv/").as_deref(), Some("0/0"), "{container}");
        assert!(!listed.contains("srv/app/5\n"), "{container}");
    }
    run(
        "echo in >goods; ./lamina cp goods web:/srv/goods; ./lamina cp web:/srv/goods out; cmp goods out; ./lamina rm web again",
    );
    // For root the same archive has the owners in the files.
    front.run(&["load", "-q", "-i", home.join("saved.tar").to_str().expect("UTF-8")]);
    front.container("as-root", "app:2");
    let shown = front.overlay("as-root", &front.parts("as-root").lowers);
    let found = fs::metadata(shown.path().join("srv/app/2")).expect("stat");
    assert_eq!((found.uid(), found.gid()), (1000, 2000));
    assert_eq!(fs::metadata(shown.path()).expect("stat").uid(), 0, "the root stays root's");
}

#[test]
fn a_copy_to_a_link_goes_to_where_it_leads_inside_the_container() {
    needs!(missing(), machine::root());
    let front = Front::with_image();
    let outside = front.scratch("outside");
    fs::write(&outside, "the host's").expect("write");
    let up = "../".repeat(30);
    let script = format!(
        "ln -s /srv/kept absolute; ln -s {up}srv/kept srv/above; ln -s {} srv/out; ln -s kept srv/beside; echo old >srv/kept",
        outside.display()
    );
    front.run(&[
        "run",
        "--name",
        "web",
        "app:1",
        "sh",
        "-c",
        &format!("{script}; mkdir -p .{}", front.scratch("").display()),
    ]);
    let source = front.scratch("source");
    for (to, place) in
        [("/absolute", "/srv/kept"), ("/srv/above", "/srv/kept"), ("srv/beside", "/srv/kept"), ("/srv/out", "/srv/out")]
    {
        fs::write(&source, to).expect("write");
        front.run(&["cp", source.to_str().expect("UTF-8"), &format!("web:{to}")]);
        let read = front.scratch("read");
        front.run(&["cp", "-L", &format!("web:{place}"), read.to_str().expect("UTF-8")]);
        assert_eq!(fs::read_to_string(read).expect("read"), to);
        let link = front.scratch("link");
        front.run(&["cp", &format!("web:{to}"), link.to_str().expect("UTF-8")]);
        assert!(link.is_symlink(), "the link stays");
        fs::remove_file(link).expect("unlink");
    }
    assert_eq!(fs::read_to_string(&outside).expect("read"), "the host's");
    let refused = front.refusal(&["cp", "web:/srv/kept", "other:/srv"]);
    assert!(refused.contains("copying between containers is not supported"), "{refused}");
}
