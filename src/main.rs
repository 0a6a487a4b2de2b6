//! The `patchbay` program; everything is in `patchbay::app`.

use std::process::ExitCode;

fn main() -> ExitCode {
    patchbay::app::main(|_config| Err("this build answers commands only; serving is not part of it"))
}
