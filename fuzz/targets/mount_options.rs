//! A command line, its arguments separated by NUL: an answer or a sentence, never a panic, and warnings that name what they are about.
#![no_main]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use lamina_fs::options::{Environment, Invocation, Options, ProgramName};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((&how, line)) = bytes.split_first() else { return };
    let arguments = || line.split(|byte| *byte == 0).map(|argument| OsString::from_vec(argument.to_vec()));
    let name = if how & 1 == 0 { ProgramName::LaminaFs } else { ProgramName::FuseOverlayfs };
    let environment = Environment { name, root: how & 2 != 0, dot_whiteouts: how & 4 != 0 };
    match Options::parse(arguments(), &environment) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(Invocation::Mount(options)) => {
            assert!(options.warnings.iter().all(|warning| !warning.is_empty()));
            let again = Options::parse(arguments(), &environment);
            assert!(matches!(again, Ok(Invocation::Mount(again)) if again == options), "the same line, another mount");
        }
        Ok(_) => {}
    }
});
