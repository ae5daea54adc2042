//! Archives and layouts, in and out.

use std::fs::File;
use std::process::Stdio;

use support::{debian, machine, needs};

use crate::command::Images;

/// An archive of the test image, written by skopeo.
fn archive(images: &Images, kind: &str) -> std::path::PathBuf {
    let path = images.scratch(&format!("{kind}.tar"));
    let source = format!("oci:{}:app", debian::layout().display());
    machine::run("skopeo", &["copy", "--quiet", &source, &format!("{kind}:{}:localhost/app:1", path.display())]);
    path
}

fn missing() -> Option<String> {
    debian::missing().or_else(|| machine::program("skopeo"))
}

fn diff_ids(images: &Images, name: &str) -> serde_json::Value {
    images.json(&["inspect", name])["config"]["rootfs"]["diff_ids"].clone()
}

#[test]
fn archives_of_other_tools_are_loaded_from_files_and_pipes() {
    needs!(missing());
    let whole = Images::new();
    whole.run(&["load".as_ref(), debian::layout().as_os_str(), "--tag".as_ref(), "app".as_ref()]);
    let expected = diff_ids(&whole, "app");
    for kind in ["docker-archive", "oci-archive"] {
        let images = Images::new();
        let path = archive(&images, kind);
        images.run(&["load".as_ref(), path.as_os_str()]);
        assert_eq!(diff_ids(&images, "localhost/app:1"), expected, "{kind}");
        let piped = Images::new();
        let mut cat = cat_of(&path);
        let output = piped.command(&["load"]).stdin(cat.stdout.take().expect("pipe")).output().expect("it starts");
        assert!(output.status.success(), "{kind}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(cat.wait().expect("cat ends").success(), "the writer of the pipe was not cut off");
        assert_eq!(diff_ids(&piped, "localhost/app:1"), expected, "{kind} from a pipe");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "nothing is said where nobody watches");
    }
}

fn cat_of(path: &std::path::Path) -> std::process::Child {
    std::process::Command::new("cat").arg(path).stdout(Stdio::piped()).spawn().expect("cat starts")
}

#[test]
fn saved_images_are_taken_by_other_tools_and_by_ourselves() {
    needs!(missing());
    let images = Images::new();
    images.run(&["load".as_ref(), debian::layout().as_os_str(), "--tag".as_ref(), "localhost/app:1".as_ref()]);
    let expected = diff_ids(&images, "localhost/app:1");
    let digest = images.json(&["list"])[0]["digest"].as_str().expect("digest").to_owned();
    for (kind, transport) in [("docker", "docker-archive"), ("oci", "oci-archive"), ("directory", "oci")] {
        let path = images.scratch(kind);
        let output = path.to_str().expect("UTF-8");
        images.run(&["save", "localhost/app:1", "--archive", kind, "--output", output]);
        let seen = machine::run("skopeo", &["inspect", "--config", &format!("{transport}:{output}")]);
        let seen: serde_json::Value = serde_json::from_str(&seen).expect("JSON");
        assert_eq!(seen["rootfs"]["diff_ids"], expected, "{kind}");
        let again = Images::new();
        again.run(&["load", output]);
        assert_eq!(again.json(&["list"])[0]["digest"].as_str(), Some(digest.as_str()), "{kind} keeps the digest");
    }
    let layout = images.scratch("directory");
    let bundle = images.scratch("bundle");
    machine::run("umoci", &["unpack", "--image", &format!("{}:1", layout.display()), bundle.to_str().expect("UTF-8")]);
    assert!(bundle.join("rootfs/opt/third/data").exists());
}

#[test]
fn podman_loads_what_is_saved() {
    needs!(missing(), machine::program("podman"));
    let images = Images::new();
    images.run(&["load".as_ref(), debian::layout().as_os_str(), "--tag".as_ref(), "localhost/app:1".as_ref()]);
    let path = images.scratch("docker.tar");
    images.run(&["save", "localhost/app:1", "--output", path.to_str().expect("UTF-8")]);
    let (root, run) = (images.scratch("podman"), images.scratch("podman-run"));
    let storage = format!("--root {} --runroot {} --storage-driver vfs", root.display(), run.display());
    machine::shell(&format!("podman {storage} load --quiet --input {}", path.display()));
    let id = machine::shell(&format!("podman {storage} inspect --type image --format '{{{{.Id}}}}' localhost/app:1"));
    assert_eq!(images.json(&["list"])[0]["id"].as_str(), Some(format!("sha256:{}", id.trim()).as_str()));
}

#[test]
fn layers_are_shared_by_their_chain() {
    needs!(debian::missing());
    let images = Images::new();
    let layout = debian::layout();
    images.run(&["load".as_ref(), layout.as_os_str(), "--tag".as_ref(), "one".as_ref()]);
    images.run(&["load".as_ref(), layout.as_os_str(), "--tag".as_ref(), "two".as_ref()]);
    assert_eq!(images.layers("one"), images.layers("two"));
    images.run(&["remove", "one"]);
    images.run(&["prune"]);
    assert!(images.layers("two").iter().all(|layer| layer.exists()));
    images.run(&["remove", "two"]);
    images.run(&["prune"]);
    images.assert_empty();
}

#[test]
fn names_are_found_listed_given_and_taken() {
    let images = Images::new();
    let root = images.scratch("root");
    std::fs::create_dir_all(root.join("etc")).expect("mkdir");
    std::fs::write(root.join("etc/name"), "value").expect("write");
    let tar = images.scratch("root.tar");
    machine::run("tar", &["-c", "-z", "-f", tar.to_str().expect("UTF-8"), "-C", root.to_str().expect("UTF-8"), "."]);
    images.run(&["import", tar.to_str().expect("UTF-8"), "mine:1"]);
    assert_eq!(std::fs::read(images.layers("mine:1")[0].join("etc/name")).expect("read"), b"value");
    let id = images.json(&["list"])[0]["id"].as_str().expect("id")[7..19].to_owned();
    images.run(&["tag", &id, "other/name:2"]);
    assert_eq!(images.json(&["list"]).as_array().map(Vec::len), Some(2));
    assert!(images.run(&["list"]).contains("mine:1"));
    assert_eq!(images.json(&["history", "mine:1"])[0]["created_by"], "imported");
    assert!(images.refusal(&["inspect", "absent"]).contains("no image is called absent"));
    assert!(images.refusal(&["tag", "mine:1", "UPPER/x y"]).contains("not the name of an image"));
    assert!(images.refusal(&["remove", "mine:1", "absent"]).contains("absent"));
    images.run(&["remove", &id]);
    images.run(&["prune"]);
    images.assert_empty();
}

/// Changes one blob of a copy of the layout.
fn damaged(images: &Images, change: &str) -> std::path::PathBuf {
    let layout = images.scratch("damaged");
    machine::shell(&format!(
        "cp -r {} {} && cd {} && {change}",
        debian::layout().display(),
        layout.display(),
        layout.display()
    ));
    layout
}

const LARGEST_BLOB: &str = "$(ls -S blobs/sha256/* | head -n1)";

#[test]
fn damage_is_named_and_leaves_nothing() {
    needs!(debian::missing());
    for (change, why) in [
        (format!("printf x | dd of={LARGEST_BLOB} bs=1 seek=1000 conv=notrunc status=none"), "has other content"),
        (format!("truncate -s -9 {LARGEST_BLOB}"), "has other content"),
        (format!("rm {LARGEST_BLOB}"), "which it does not hold"),
        ("rm index.json".to_owned(), "is no image"),
        ("echo '{' >index.json".to_owned(), "is damaged"),
    ] {
        let images = Images::new();
        let layout = damaged(&images, &change);
        let layout = layout.to_str().expect("UTF-8");
        let text = images.refusal(&["load", layout, "--tag", "x"]);
        assert!(text.contains(why), "{change}: {text}");
        images.assert_empty();
        if !change.contains("index") {
            let archive = images.scratch("damaged.tar");
            machine::run("tar", &["-c", "-f", archive.to_str().expect("UTF-8"), "-C", layout, "."]);
            let piped = images
                .command(&["load", "--tag", "x"])
                .stdin(File::open(&archive).expect("open"))
                .output()
                .expect("it starts");
            let text = String::from_utf8_lossy(&piped.stderr).into_owned();
            assert!(!piped.status.success() && (text.contains(why) || text.contains("refers to")), "{change}: {text}");
            images.assert_empty();
        }
    }
}

#[test]
fn layer_that_is_not_what_the_image_says_leaves_nothing() {
    let images = Images::new();
    let layout = images.scratch("layout");
    // An image whose configuration names another content than its layer has.
    machine::shell(&format!(
        "mkdir -p {0}/blobs/sha256 && cd {0} && printf '{{\"imageLayoutVersion\":\"1.0.0\"}}' >oci-layout
         put() {{ sum=$(sha256sum \"$1\" | cut -d' ' -f1); size=$(stat -c %s \"$1\"); mv \"$1\" blobs/sha256/$sum; }}
         tar -c -f layer -T /dev/null; put layer; layer=$sum layer_size=$size
         printf '{{\"architecture\":\"amd64\",\"os\":\"linux\",\"rootfs\":{{\"type\":\"layers\",\"diff_ids\":[\"sha256:%064d\"]}}}}' 7 >config
         put config; config=$sum config_size=$size
         printf '{{\"schemaVersion\":2,\"config\":{{\"mediaType\":\"application/vnd.oci.image.config.v1+json\",\"digest\":\"sha256:%s\",\"size\":%d}},\"layers\":[{{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar\",\"digest\":\"sha256:%s\",\"size\":%d}}]}}' $config $config_size $layer $layer_size >manifest
         put manifest
         printf '{{\"schemaVersion\":2,\"manifests\":[{{\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"digest\":\"sha256:%s\",\"size\":%d}}]}}' $sum $size >index.json",
        layout.display()
    ));
    let text = images.refusal(&["load", layout.to_str().expect("UTF-8"), "--tag", "x"]);
    assert!(text.contains("unpacks to sha256:") && text.contains("the image says"), "{text}");
    images.assert_empty();
}
