//! The `mcpctl` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    // The data plane starts this very program again to guard its stdio children.
    if let Some(code) = mcp_dataplane::upstream::guard::main_if_asked() {
        return code;
    }
    mcpctl::main()
}
