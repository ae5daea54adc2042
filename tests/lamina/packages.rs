//! A real Debian: dpkg installs a real package, and apt works, for root and for users with many ids and with one.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use support::{essential, machine, needs};

use crate::place::{Place, Way, write_layout};

const IMAGE: &str = "debian:test";

/// A package of the machine's own Debian with files of a group that is not root's, built anew from what is installed here.
fn package(home: &Path) -> PathBuf {
    let tree = home.join("package");
    machine::shell(&format!(
        "mkdir -p {0}/DEBIAN {0}/usr/share/owned {0}/etc/owned
         printf 'Package: owned\\nVersion: 1.0\\nArchitecture: all\\nMaintainer: nobody <nobody@example.org>\\nDescription: files of several owners\\n' >{0}/DEBIAN/control
         printf '#!/bin/sh\\nset -e\\nchown root:mail /usr/share/owned/mail\\nchmod 2755 /usr/share/owned/mail\\nchown games:games /etc/owned\\n' >{0}/DEBIAN/postinst
         chmod 755 {0}/DEBIAN/postinst
         echo mail >{0}/usr/share/owned/mail; echo conf >{0}/etc/owned/file; chown 8:8 {0}/etc/owned/file; ln {0}/usr/share/owned/mail {0}/usr/share/owned/again",
        tree.display()
    ));
    let file = home.join("owned.deb");
    machine::run("dpkg-deb", &["--build", tree.to_str().unwrap(), file.to_str().unwrap()]);
    file
}

#[test]
fn dpkg_and_apt_install_packages() {
    let missing = || Way::ManyIds.missing().or_else(essential::missing).or_else(|| machine::program("dpkg-deb"));
    needs!(missing());
    let home = tempfile::tempdir().unwrap();
    let base = essential::debian();
    needs!(base.is_none().then(|| "no Debian can be had here".to_owned()));
    let layout = home.path().join("layout");
    write_layout(
        &layout,
        &[base.unwrap()],
        json!({"Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["bash"]}),
        IMAGE,
    );
    crate::place::chmod(home.path(), 0o755);
    let shared = home.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::copy(package(home.path()), shared.join("owned.deb")).unwrap();
    let volume = format!("{}:/shared:ro", shared.display());
    for way in Way::ALL {
        let place = Place::empty(way);
        place.load(&layout);
        let script = "set -e; dpkg -i /shared/owned.deb; dpkg -s owned | grep ^Status; stat -c %U:%G:%a /usr/share/owned/mail /etc/owned; \
                      test /usr/share/owned/mail -ef /usr/share/owned/again; dpkg -V owned; dpkg -P owned; \
                      apt-get install -y --no-install-recommends /shared/owned.deb; apt-mark showmanual | grep owned; apt-get purge -y owned; ! test -e /etc/owned";
        let said = place.lamina(&[
            "run",
            "--rm",
            "-v",
            &volume,
            "-e",
            "DEBIAN_FRONTEND=noninteractive",
            IMAGE,
            "bash",
            "-c",
            script,
        ]);
        let shown = said.out.clone();
        said.ok();
        assert!(shown.contains("Status: install ok installed"), "{way:?}: {shown}");
        let owners =
            if way == Way::OneId { "root:root:2755\nroot:root:755" } else { "root:mail:2755\ngames:games:755" };
        assert!(shown.contains(owners), "{way:?}: {shown}");
        assert_eq!(place.leftovers(), Vec::<String>::new(), "{way:?}");
    }
}
