//! What an image says and what a user says, together.

use super::*;
use oci_spec::image::ConfigBuilder;

fn image() -> Config {
    let config = ConfigBuilder::default()
        .entrypoint(vec!["/entry".to_owned()])
        .cmd(vec!["one".to_owned(), "two".to_owned()])
        .env(vec!["PATH=/bin".to_owned(), "A=image".to_owned()])
        .working_dir("/srv")
        .user("www")
        .volumes(vec!["/data".to_owned(), "/logs/".to_owned()]);
    config.build().unwrap()
}

fn built(wish: &Wish) -> Bundle {
    let ground = Ground { image: Some(&image()), short_id: "0123456789ab", dir: Path::new("/c"), rootless: true };
    build(wish, &ground).unwrap()
}

#[test]
fn the_command_line_is_put_together_as_docker_does() {
    let words = |entrypoint: Option<&str>, command: &[&str]| {
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        built(&Wish { entrypoint: entrypoint.map(str::to_owned), command, ..Wish::default() }).command
    };
    assert_eq!(words(None, &[]), ["/entry", "one", "two"]);
    assert_eq!(words(None, &["x"]), ["/entry", "x"]);
    assert_eq!(words(Some("sh"), &[]), ["sh"]);
    assert_eq!(words(Some("sh"), &["-c"]), ["sh", "-c"]);
    assert_eq!(words(Some(""), &["true"]), ["true"]);
    let ground = Ground { image: None, short_id: "0", dir: Path::new("/c"), rootless: true };
    let said = build(&Wish::default(), &ground).unwrap_err().to_string();
    assert!(said.contains("no command specified"), "{said}");
}

#[test]
fn the_last_word_on_a_variable_counts() {
    let wish = Wish { environment: vec!["A=user".to_owned(), "B=".to_owned()], ..Wish::default() };
    let base = built(&wish).base;
    assert_eq!(base["process"]["env"], json!(["HOSTNAME=0123456789ab", "PATH=/bin", "A=user", "B="]));
    assert_eq!(base["process"]["cwd"], "/srv");
    assert_eq!(user(&base), "www");
}

#[test]
fn volumes_of_the_image_are_anonymous_unless_covered() {
    let volume = Volume { source: Some("/host".into()), destination: "/logs".into(), options: vec!["ro".into()] };
    let wish = Wish { volumes: vec![volume], ..Wish::default() };
    let bundle = built(&wish);
    assert_eq!(bundle.anonymous, ["/data"]);
    let mounts = bundle.base["mounts"].as_array().unwrap().clone();
    let at = |destination: &str| mounts.iter().find(|mount| mount["destination"] == destination).unwrap().clone();
    assert_eq!(at("/data")["source"], "/c/volumes/0");
    assert_eq!(at("/logs")["options"], json!(["rbind", "rprivate", "ro"]));
}

#[test]
fn what_is_no_volume_is_refused_in_a_sentence() {
    for (text, named) in [
        ("name:/data", "named volumes"),
        ("/no/such/source:/data", "make it first"),
        ("/tmp:data", "absolute"),
        ("/tmp:/", "'/'"),
        ("/tmp:/data:quick", "quick"),
        ("/a:/b:/c:/d", "SOURCE:DESTINATION"),
    ] {
        let said = text.parse::<Volume>().unwrap_err().to_string();
        assert!(said.contains(named), "{text}: {said}");
    }
    assert_eq!("/data".parse::<Volume>().unwrap().source, None);
}

#[test]
fn a_container_with_one_id_is_told_so() {
    let base = built(&Wish { seccomp: Seccomp::Unconfined, ..Wish::default() }).base;
    let namespace = Path::new("/proc/7/ns/user");
    let spec = adapt(&base, &Ids::one(), Some(namespace)).unwrap();
    assert!(spec["linux"]["namespaces"].as_array().unwrap().contains(&json!({"type": "user", "path": namespace})));
    assert_eq!(spec["linux"]["seccomp"]["syscalls"][0]["errnoRet"], 0);
    let plain = adapt(&base, &Ids::Host, None).unwrap();
    assert!(plain["linux"]["seccomp"].is_null());
}
