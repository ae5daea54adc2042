//! Without privilege: owners and devices are kept in an attribute, and what is packed of the layers has them again.

use support::{literal, machine, needs};

use crate::command::{Images, binary};
use crate::debian;

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
    std::fs::copy(binary(), &program).expect("copy");
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
