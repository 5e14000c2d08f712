//! The OCI runtime behind RuntimeClass `shadow`.

use std::process::ExitCode;

fn main() -> ExitCode {
    shadow::runtime::main()
}
