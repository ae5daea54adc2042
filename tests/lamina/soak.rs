//! Many short lives beside a long one: what stays must not grow, and of the others nothing may be left.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use support::growth::{Figures, named_after};
use support::{machine, needs};

use crate::place::{IMAGE, Place, Way, chmod};

/// Who has them, the same number each.
const WAYS: [Way; 2] = [Way::Root, Way::ManyIds];

/// The trap is set when the other end of the fifo reads: before that, the first process of a pid namespace would ignore the signal.
const PASSING: &str = "trap 'exit 7' TERM; echo ready >/meet/ready; while :; do sleep 100000 & wait; done";

/// One life, and a command in the container that stays; answers the id.
fn cycle(place: &Place) -> String {
    let volume = format!("{}:/meet", place.home.path().join("meet").display());
    let words = ["run", "-d", "--name", "passing", "-v", &volume, IMAGE, "sh", "-c", PASSING];
    let id = place.lamina(&words).ok().trim().to_owned();
    let script = "read line </meet/ready; echo $line >/own; cat /own";
    assert_eq!(place.lamina(&["exec", "passing", "sh", "-c", script]).ok(), "ready\n");
    let script = "date >/own; mv /own /kept; cat /data/file";
    assert_eq!(place.lamina(&["exec", "staying", "sh", "-c", script]).ok(), "of the image\n");
    assert_eq!(place.lamina(&["stop", "passing"]).ok(), "passing\n");
    assert_eq!(place.lamina(&["rm", "passing"]).ok(), "passing\n");
    id
}

#[test]
fn nothing_grows_and_nothing_is_left_while_containers_come_and_go() {
    for way in WAYS {
        needs!(way.missing(), machine::program("mkfifo"));
        let cycles = machine::number_from_env("LAMINA_SOAK", 100) / WAYS.len() as u64;
        let place = Place::new(way);
        let meet = place.home.path().join("meet");
        fs::create_dir(&meet).unwrap();
        chmod(&meet, 0o755);
        machine::run("mkfifo", &["-m", "666", meet.join("ready").to_str().unwrap()]);
        let id = place.lamina(&["run", "-d", "--name", "staying", IMAGE, "sleep", "100000"]).ok().trim().to_owned();
        let (run, shown) = (place.run_file(&id), place.lamina(&["inspect", "staying"]).ok());
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        let number = |value: &serde_json::Value| value.as_i64().unwrap() as i32;
        let staying = [
            ("the server", number(&run["server"]["pid"])),
            ("the monitor", number(&run["monitor"]["pid"])),
            ("the container", number(&shown[0]["State"]["Pid"])),
        ];
        let figures = || Figures::now(&staying, place.home.path(), place.leftovers());
        let mut ids: BTreeSet<String> = (0..(cycles / 10).max(10)).map(|_| cycle(&place)).collect();
        let before = figures();
        let begun = Instant::now();
        ids.extend((0..cycles).map(|_| cycle(&place)));
        println!("{way:?}: {:?} a cycle", begun.elapsed() / u32::try_from(cycles).unwrap());
        figures().assert_flat_since(&before, cycles, &format!("{way:?}"));
        assert_eq!(named_after(&ids), Vec::<PathBuf>::new(), "{way:?}");
        place.lamina(&["rm", "-f", "staying"]).ok();
        assert_eq!(place.leftovers(), Vec::<String>::new(), "{way:?}");
    }
}
