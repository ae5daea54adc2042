//! An image of a real Debian system as an OCI archive. Owns the making of layers; the base is made once by mmdebstrap and kept between
//! runs. Invariant: the archive is built by plain tools, so that nothing of ours is both writer and judge.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use support::machine;

/// The name under which containerd finds it.
pub const NAME: &str = "docker.io/lamina/debian:test";

/// What making it needs and this machine lacks.
pub fn missing() -> Option<String> {
    ["mmdebstrap", "tar", "gzip"].into_iter().find_map(machine::program)
}

/// A minimal Debian as a tar, from the cache if one is there; none if no packages can be fetched here.
pub fn debian() -> Option<PathBuf> {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let base = cache.join("debian-base.tar");
    if base.exists() {
        return Some(base);
    }
    // Under a name of its own until it is whole: another run may be making it too.
    let making = cache.join(format!("debian-base-{}.tar", std::process::id()));
    let skip = "--skip=chroot/mount/sys,output/dev,output/mknod";
    let words = ["--quiet", "--mode=root", "--variant=minbase", skip, "bookworm"];
    let made = machine::output("mmdebstrap", &[&words[..], &[making.to_str().expect("UTF-8")]].concat());
    if !made.status.success() {
        println!("mmdebstrap: {}", String::from_utf8_lossy(&made.stderr));
        return None;
    }
    fs::rename(&making, &base).expect("rename");
    Some(base)
}

/// Writes the archive: Debian; a tool with a hard link; a name removed, a directory replaced, a file of the base changed.
pub fn archive(home: &Path) -> Option<PathBuf> {
    let base = debian()?;
    let blobs = home.join("image/blobs/sha256");
    fs::create_dir_all(&blobs).expect("mkdir");
    machine::shell(&format!(
        "umask 022; cd {}; mkdir -p two/opt/tool two/etc three/opt/tool three/etc
         echo '#!/bin/sh' >two/opt/tool/run; echo 'echo tool' >>two/opt/tool/run; chmod 755 two/opt/tool/run
         ln two/opt/tool/run two/opt/tool/alias; echo gone >two/opt/tool/old
         echo three >three/etc/motd; : >three/etc/.wh.issue.net; : >three/opt/tool/.wh..wh..opq; echo new >three/opt/tool/new
         for layer in two three; do tar --numeric-owner --sort=name -cf $layer.tar -C $layer .; done",
        home.display()
    ));
    let layers = [base, home.join("two.tar"), home.join("three.tar")];
    let (mut diffs, mut descriptors) = (Vec::new(), Vec::new());
    for layer in &layers {
        diffs.push(format!("\"sha256:{}\"", digest(layer)));
        let packed = home.join("packed");
        machine::shell(&format!("gzip -1nc {} >{}", layer.display(), packed.display()));
        descriptors.push(put(&blobs, &packed, "application/vnd.oci.image.layer.v1.tar+gzip"));
    }
    let document = |text: String, media_type: &str| {
        let path = home.join("document");
        fs::write(&path, text).expect("write");
        put(&blobs, &path, media_type)
    };
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = document(
        format!(
            r#"{{"architecture":"{architecture}","os":"linux","config":{{"Env":["PATH=/usr/bin:/bin"],"Cmd":["sh"]}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
            diffs.join(",")
        ),
        "application/vnd.oci.image.config.v1+json",
    );
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{media_type}","config":{config},"layers":[{}]}}"#,
        descriptors.join(",")
    );
    let manifest = document(manifest, media_type);
    let named = manifest.replacen('{', &format!(r#"{{"annotations":{{"io.containerd.image.name":"{NAME}"}},"#), 1);
    let image = home.join("image");
    fs::write(image.join("index.json"), format!(r#"{{"schemaVersion":2,"manifests":[{named}]}}"#)).expect("write");
    fs::write(image.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("write");
    let archive = home.join("image.tar");
    machine::run("tar", &["-cf", archive.to_str()?, "-C", image.to_str()?, "oci-layout", "index.json", "blobs"]);
    Some(archive)
}

/// Moves a file among the blobs; answers its descriptor.
fn put(blobs: &Path, path: &Path, media_type: &str) -> String {
    let (digest, size) = (digest(path), fs::metadata(path).expect("stat").len());
    fs::rename(path, blobs.join(&digest)).expect("rename");
    format!(r#"{{"mediaType":"{media_type}","digest":"sha256:{digest}","size":{size}}}"#)
}

fn digest(path: &Path) -> String {
    let mut hasher = Sha256::new();
    std::io::copy(&mut File::open(path).expect("open"), &mut hasher).expect("read");
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
