//! The specification's MUSTs asked of three runtimes: prints one table. Nothing here decides whether a test passes.
//!
//! crun refuses hosts that have both versions of cgroups while a controller is left in version 2; mounting it in version 1 meanwhile
//! (`mount -t cgroup -o hugetlb none DIR`) lets it run.

mod bundle;
mod musts;

use bundle::Runtime;
use std::panic::{AssertUnwindSafe, catch_unwind};

fn main() {
    let others = ["runc", "crun"].into_iter().filter_map(|name| {
        let program = support::machine::find_program(name)?;
        Some(Runtime { name, program })
    });
    let runtimes: Vec<Runtime> = [bundle::lamina_oci()].into_iter().chain(others).collect();
    std::panic::set_hook(Box::new(|_| {}));
    print!("{:<64}", "requirement");
    runtimes.iter().for_each(|runtime| print!("{:>12}", runtime.name));
    println!();
    let mut met = vec![0; runtimes.len()];
    for (name, must) in musts::ALL {
        print!("{name:<64}");
        for (runtime, met) in runtimes.iter().zip(&mut met) {
            let kept = catch_unwind(AssertUnwindSafe(|| must(runtime))).is_ok();
            *met += i32::from(kept);
            print!("{:>12}", if kept { "yes" } else { "no" });
        }
        println!();
    }
    print!("{:<64}", format!("met, of {}", musts::ALL.len()));
    met.iter().for_each(|met| print!("{met:>12}"));
    println!();
}
