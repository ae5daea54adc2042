//! The verbs of images, in docker's words.

use std::process::Stdio;

use support::registry::Server;
use support::{debian, machine, needs};

use crate::front::Front;

#[test]
fn images_are_listed_in_dockers_columns() {
    needs!(debian::missing());
    let front = Front::new();
    assert_eq!(front.run(&["images"]), "REPOSITORY  TAG  IMAGE ID  CREATED  SIZE\n");
    let front = Front::with_image();
    front.run(&["tag", "app:1", "registry.test:5000/team/app:two"]);
    let id = front.run(&["images", "-q"]);
    assert_eq!(id.trim().len(), 12, "one image, one id: {id}");
    let table = front.run(&["images"]);
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[1][..3], ["app", "1", id.trim()]);
    assert_eq!(rows[2][..3], ["registry.test:5000/team/app", "two", id.trim()]);
    let objects = front.json_lines(&["images", "--format", "json", "--no-trunc", "app"]);
    assert_eq!(objects.len(), 1);
    assert_eq!((&objects[0]["Repository"], &objects[0]["Tag"]), (&"app".into(), &"1".into()));
    assert!(objects[0]["ID"].as_str().is_some_and(|full| full.starts_with(&format!("sha256:{}", id.trim()))));
    assert!(front.run(&["images", "--digests"]).contains("sha256:"));
    assert_eq!(front.json_lines(&["images", "--format", "json", "registry.test:5000/team/app:other"]).len(), 0);
}

#[test]
fn a_name_goes_and_the_layers_with_the_last_one() {
    needs!(debian::missing());
    let front = Front::with_image();
    front.run(&["tag", "app:1", "app:2"]);
    let id = front.json(&["inspect", "app:1"])[0]["Id"].as_str().expect("an id").to_owned();
    let refused = front.refusal(&["rmi", &id[7..19]]);
    assert!(refused.contains("multiple repositories"), "{refused}");
    assert_eq!(front.run(&["rmi", "app:1"]), "Untagged: app:1\n");
    front.container("web", "app:2");
    let refused = front.refusal(&["rmi", "app:2"]);
    assert!(refused.contains("is using its referenced image"), "{refused}");
    let gone = front.run(&["rmi", "-f", "app:2"]);
    assert_eq!(gone, format!("Untagged: app:2\nDeleted: {id}\n"));
    assert!(front.parts("web").lowers.iter().all(|layer| layer.is_dir()), "a container keeps its layers");
    assert_eq!(front.run(&["prune", "-f"]), "0 layers and 0 blobs\nTotal reclaimed space: 0 B\n");
    let refused = front.refusal(&["rmi", "app:2", "web"]);
    assert!(refused.contains("app:2"), "{refused}");
}

#[test]
fn what_is_saved_is_loaded_again() {
    needs!(debian::missing());
    let front = Front::with_image();
    let digest = |front: &Front| front.json(&["inspect", "app:1"])[0]["Id"].clone();
    let expected = digest(&front);
    let path = front.scratch("saved");
    for format in ["docker-archive", "oci-archive", "oci-dir"] {
        let name = format!("{}-{format}", path.display());
        front.run(&["save", "-o", &name, "--format", format, "app:1"]);
        let again = Front::new();
        assert_eq!(again.run(&["load", "-i", &name]), "Loaded image: app:1\n");
        assert_eq!(digest(&again), expected, "{format}");
    }
    let mut saving = front.command(&["save", "app:1"]).stdout(Stdio::piped()).spawn().expect("it starts");
    let again = Front::new();
    let loading =
        again.command(&["load", "-q"]).stdin(saving.stdout.take().expect("a pipe")).output().expect("it runs");
    assert!(saving.wait().expect("it ends").success() && loading.status.success());
    assert_eq!(digest(&again), expected, "through a pipe");
    let refused = front.refusal(&["save", "-o", &format!("{}/none/x", path.display()), "app:1"]);
    assert!(refused.contains("cannot write") && refused.contains("none/x"), "{refused}");
}

#[test]
fn an_image_goes_to_a_registry_and_comes_back() {
    needs!(debian::missing(), Server::missing());
    let server = Server::open();
    let front = Front::with_image();
    let name = format!("localhost:{}/team/app:1", server.port);
    front.run(&["tag", "app:1", &name]);
    let pushed = front.run(&["push", &name]);
    let digest = pushed.trim().rsplit(' ').next().expect("a digest").to_owned();
    assert!(digest.starts_with("sha256:"), "{pushed}");
    let other = Front::new();
    let pulled = other.run(&["pull", &name]);
    assert_eq!(pulled, format!("Digest: {digest}\nStatus: Downloaded newer image for {name}\n{name}\n"));
    assert!(other.run(&["pull", &name]).contains("Status: Image is up to date"));
    assert_eq!(other.run(&["pull", "-q", &name]), format!("{name}\n"));
}

#[test]
fn history_tells_every_step_and_what_it_takes() {
    needs!(debian::missing());
    let front = Front::with_image();
    let steps = front.json_lines(&["history", "--format", "json", "app:1"]);
    let made: Vec<&str> = steps.iter().filter_map(|step| step["CreatedBy"].as_str()).collect();
    assert!(made.contains(&"third") && made.contains(&"debian base"), "{made:?}");
    let sizes: u64 = steps.iter().filter_map(|step| step["SizeBytes"].as_u64()).sum();
    let listed = front.json_lines(&["images", "--format", "json"]);
    assert_eq!(Some(sizes), listed[0]["SizeBytes"].as_u64(), "the steps add up to the image");
    assert!(front.run(&["history", "app:1"]).starts_with("IMAGE"));
}

#[test]
fn a_tar_becomes_an_image() {
    let front = Front::new();
    let tar = front.scratch("root.tar");
    machine::shell(&format!(
        "cd {0}; mkdir tree; echo x >tree/file; tar -C tree -cf root.tar .",
        front.scratch("").display()
    ));
    let id = front.run(&["import", tar.to_str().expect("UTF-8"), "mine:1"]);
    let inspected = front.json(&["inspect", "mine:1"]);
    assert_eq!(inspected[0]["Id"].as_str(), Some(id.trim()));
    assert_eq!(inspected[0]["RepoTags"][0], "mine:1");
}

#[test]
fn what_is_wrong_is_one_sentence_and_exit_code_125() {
    let front = Front::new();
    for (arguments, part) in [
        (&["inspect", "nothing"][..], "No such object: nothing"),
        (&["diff", "nothing"], "No such container: nothing"),
        (&["commit", "nothing"], "No such container: nothing"),
        (&["cp", "nothing:/x", "-"], "No such container: nothing"),
        (&["cp", "/etc", "/tmp"], "name no container"),
        (&["history", "nothing"], "no image is called nothing"),
        (&["tag", "nothing", "x"], "no image is called nothing"),
        (&["load", "-i", "/nonexistent"], "/nonexistent"),
        (&["man", "nothing"], "no verb"),
    ] {
        let refused = front.refusal(arguments);
        assert!(refused.contains(part), "{refused}");
    }
    for wrong in [&["frobnicate"][..], &["images", "--frobnicate"], &["tag", "x"], &["commit", "-c", "RUN x", "c"]] {
        let output = front.output(wrong);
        assert_eq!(output.status.code(), Some(125), "{wrong:?}");
        assert!(!output.stderr.is_empty());
    }
}

#[test]
fn help_man_pages_and_completions_know_every_verb() {
    let front = Front::new();
    let help = front.run(&["--help"]);
    let verbs =
        ["images", "pull", "push", "load", "save", "import", "tag", "rmi", "history", "prune", "inspect", "info"];
    let own = ["diff", "commit", "cp", "df", "mount", "umount", "version", "completions", "man"];
    let completions = front.run(&["completions", "bash"]);
    for verb in verbs.into_iter().chain(own) {
        assert!(help.contains(&format!("  {verb} ")), "{verb}");
        assert!(completions.contains(verb), "{verb}");
        let page = front.run(&["man", verb]);
        assert!(page.contains(".TH") && page.contains("SYNOPSIS"), "{verb}");
    }
    assert!(front.run(&["info"]).contains("Storage Driver: lamina"));
    assert_eq!(front.json(&["info", "--format", "json"])["Images"], 0);
}
