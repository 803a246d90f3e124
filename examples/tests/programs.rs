//! Each program runs, checks its own result and ends by itself.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    process::{Command, Stdio},
    sync::mpsc,
    time::Duration,
};

/// No program takes longer, on a busy machine either.
const PATIENCE: Duration = Duration::from_secs(60);

fn run(program: &str) {
    let child = Command::new(program).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let id = child.id();
    let (sender, ended) = mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    let Ok(output) = ended.recv_timeout(PATIENCE) else {
        let _ = Command::new("kill").args(["-9", &id.to_string()]).status();
        panic!("{program} did not end within {PATIENCE:?}");
    };
    let output = output.unwrap();
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} failed: {}\n{out}\n{error}", output.status);
    assert!(!out.is_empty(), "{program} says what it shows");
    assert!(error.is_empty(), "{program} complains: {error}");
}

macro_rules! programs {
    ($($name:ident)*) => { $(
        #[test]
        fn $name() {
            run(env!(concat!("CARGO_BIN_EXE_", stringify!($name))));
        }
    )* };
}

programs! {
    two_nodes
    transports_at_run_time
    swap_storage
    route_by_address
    custom_transport
    custom_store
    hub
    mount_axum
    mount_iroh
    counter
}
