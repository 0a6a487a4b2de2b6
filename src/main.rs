//! The `patchbay` program; everything is in `patchbay::app`.

use std::process::ExitCode;

fn main() -> ExitCode {
    patchbay::app::main(patchbay::app::serve::run)
}
