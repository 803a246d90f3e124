//! Real processes of the program, for tests.
#![allow(dead_code, clippy::unwrap_used)] // Each test binary uses a part of it; a test may panic.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};
use serde_json::Value;
use sync_core::model::Ticket;

/// No wait is longer. Machines that run tests are busy.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// A fresh command of the program.
pub fn syncline() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_syncline"));
    command.stdin(Stdio::null()).env_remove("SYNCLINE_LOG");
    command
}

/// Waits until `holds`, or fails with what `state` says.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool, state: impl FnOnce() -> String) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "never came true: {what}\n{}", state());
        thread::sleep(Duration::from_millis(10));
    }
}

/// Sends a signal to a process of the test's own.
pub fn signal(process: u32, signal: Signal) {
    let process = Pid::from_raw(process.try_into().unwrap()).expect("a child has a number");
    kill_process(process, signal).unwrap();
}

/// Runs a command to its end, and answers its output. One that has no end is killed.
#[track_caller]
pub fn to_its_end(command: &mut Command) -> Output {
    let told = format!("{command:?}");
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let number = child.id();
    let (ended, waits) = mpsc::channel();
    let waiting = thread::spawn(move || {
        // Nobody takes it when it came too late.
        let _ = ended.send(child.wait_with_output().unwrap());
    });
    let output = waits.recv_timeout(DEADLINE).unwrap_or_else(|_| {
        signal(number, Signal::KILL);
        panic!("it does not end: {told}")
    });
    waiting.join().unwrap();
    output
}

/// A TCP proxy in front of a node. When `limit` bytes have come from there, the node's process is stopped, once.
pub struct StoppingProxy {
    process: u32,
    limit: u64,
    came: AtomicU64,
    stopped: AtomicBool,
}

impl StoppingProxy {
    /// Answers the ticket that leads through it, too.
    pub fn start(node: &Up, limit: u64) -> (Arc<Self>, String) {
        let target: SocketAddr = node.address("http://").trim_start_matches("http://").parse().unwrap();
        let (came, stopped) = (AtomicU64::new(0), AtomicBool::new(false));
        let proxy = Arc::new(Self { process: node.child.id(), limit, came, stopped });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut ticket: Ticket = node.field("ticket").parse().unwrap();
        ticket.addresses = vec![format!("http://{}", listener.local_addr().unwrap()).parse().unwrap()];
        let forwarding = proxy.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                let (client, proxy) = (client?, forwarding.clone());
                let server = TcpStream::connect(target)?;
                let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
                thread::spawn(move || io::copy(&mut from, &mut to));
                thread::spawn(move || proxy.forward(server, client));
            }
            io::Result::Ok(())
        });
        (proxy, ticket.to_string())
    }

    /// Whether the process was stopped.
    pub fn has_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    fn forward(&self, mut from: TcpStream, mut to: TcpStream) -> io::Result<()> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let len = from.read(&mut buffer)?;
            if len == 0 {
                return to.shutdown(Shutdown::Write);
            }
            to.write_all(&buffer[..len])?;
            let before = self.came.fetch_add(len as u64, Ordering::Relaxed);
            if (before..before + len as u64).contains(&self.limit) {
                signal(self.process, Signal::STOP);
                self.stopped.store(true, Ordering::Release);
            }
        }
    }
}

/// A running `syncline up`, killed when it is dropped.
pub struct Up {
    pub child: Child,
    pub ready: Value,
    stderr: PathBuf,
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // A task's panic ends that task alone: the program goes on, and nobody would hear of it.
        let errors = self.errors();
        assert!(thread::panicking() || !errors.contains("panicked at"), "{errors}");
    }
}

impl Up {
    /// The text of a field of the ready file.
    pub fn field(&self, name: &str) -> String {
        self.ready[name].as_str().unwrap_or_default().to_string()
    }

    /// The address of a scheme, without a slash at the end.
    pub fn address(&self, scheme: &str) -> String {
        let addresses = self.ready["addresses"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let mut found = addresses.filter(|address| address.starts_with(scheme));
        found.next().unwrap_or_default().trim_end_matches('/').to_string()
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends it in good order.
    #[track_caller]
    pub fn stop(mut self) {
        signal(self.child.id(), Signal::TERM);
        let output = ended(&mut self);
        assert!(output.status.success(), "{}: {}", output.status, self.errors());
    }

    /// What it said to its standard error.
    pub fn errors(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap_or_default()
    }
}

/// A machine: a data directory and a folder.
pub struct Machine {
    pub dir: tempfile::TempDir,
    /// What runs the program: another user, another network, another clock. Mostly nothing.
    pub wrapper: Vec<String>,
    pub program: PathBuf,
}

impl Machine {
    pub fn new() -> Self {
        let program = env!("CARGO_BIN_EXE_syncline").into();
        Self { dir: tempfile::tempdir().unwrap(), wrapper: Vec::new(), program }
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn folder(&self) -> PathBuf {
        self.dir.path().join("folder")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    pub fn save(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), content).unwrap();
    }

    pub fn read(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.path(name)).ok()
    }

    /// All files of the folder with their contents.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        fn walk(root: &Path, directory: &Path, files: &mut BTreeMap<String, Vec<u8>>) {
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    walk(root, &path, files);
                } else if let Ok(content) = fs::read(&path) {
                    files.insert(path.strip_prefix(root).unwrap().display().to_string(), content);
                }
            }
        }
        let mut files = BTreeMap::new();
        walk(&self.folder(), &self.folder(), &mut files);
        files
    }

    /// A command on this machine's data.
    pub fn command<S: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = match self.wrapper.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        command.stdin(Stdio::null()).env_remove("SYNCLINE_LOG");
        command.arg("--data").arg(self.data()).args(arguments);
        command
    }

    /// Runs a command to its end.
    #[track_caller]
    pub fn run<S: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Output {
        to_its_end(&mut self.command(arguments))
    }

    /// Runs a command that must succeed; answers its output.
    #[track_caller]
    pub fn done<S: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The document of a command with `--json` that must succeed.
    #[track_caller]
    pub fn json<S: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Value {
        let mut command = self.command(arguments);
        let output = to_its_end(command.arg("--json"));
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Starts `up` without waiting.
    pub fn spawn(&self, arguments: &[&str]) -> Up {
        let ready = self.dir.path().join("ready");
        let _ = fs::remove_file(&ready);
        let stderr = self.dir.path().join("stderr");
        let mut command = self.command(["up", "--ready-file"]);
        command.arg(&ready).args(arguments);
        command.stdout(Stdio::null()).stderr(fs::File::create(&stderr).unwrap());
        Up { child: command.spawn().unwrap(), ready: Value::Null, stderr }
    }

    /// Starts `up`, and waits until it is ready.
    #[track_caller]
    pub fn up(&self, arguments: &[&str]) -> Up {
        let mut up = self.spawn(arguments);
        let ready = self.dir.path().join("ready");
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Ok(text) = fs::read(&ready) {
                up.ready = serde_json::from_slice(&text).expect("the ready file is written whole");
                return up;
            }
            if let Some(status) = up.child.try_wait().unwrap() {
                panic!("up ended with {status}: {}", up.errors());
            }
            assert!(Instant::now() < deadline, "never ready: {}", up.errors());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Starts `up` with this machine's folder.
    #[track_caller]
    pub fn share(&self, arguments: &[&str]) -> Up {
        fs::create_dir_all(self.folder()).unwrap();
        let folder = self.folder().display().to_string();
        self.up(&[&[folder.as_str()], arguments].concat())
    }

    /// Joins with this machine's folder.
    #[track_caller]
    pub fn join(&self, ticket: &str, arguments: &[&str]) -> Up {
        let folder = self.folder().display().to_string();
        self.up(&[&[folder.as_str(), "--join", ticket], arguments].concat())
    }

    /// The root of the only replica.
    pub fn root(&self) -> String {
        self.json(["status"])["replicas"][0]["root"].as_str().unwrap_or_default().to_string()
    }
}

/// Waits until the folders of all machines are equal, and not empty.
#[track_caller]
pub fn equal(machines: &[&Machine]) {
    let all_equal = || {
        let first = machines[0].files();
        !first.is_empty() && machines[1..].iter().all(|machine| machine.files() == first)
    };
    eventually("the folders are equal", all_equal, || {
        let mut text = String::new();
        for machine in machines {
            let (files, first) = (machine.files(), machines[0].files());
            let differ = files.iter().filter(|(name, content)| first.get(*name) != Some(content));
            let missing = first.keys().filter(|name| !files.contains_key(*name));
            let names: Vec<_> = differ.map(|(name, content)| (name, content.len())).take(50).collect();
            text += &format!(
                "{} files, other than the first's: {names:?}, missing: {:?}\n",
                files.len(),
                missing.take(50).collect::<Vec<_>>()
            );
            for verb in ["status", "why"] {
                let output = machine.run([verb]);
                text += &String::from_utf8_lossy(&[output.stdout, output.stderr].concat());
            }
        }
        text
    });
}

/// Checks that a command failed as bad input must: one line, this exit code, these words.
#[track_caller]
pub fn refused(output: &Output, code: i32, words: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert_eq!(stderr.trim_end().lines().count(), 1, "one line: {stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "`{word}` is missing in: {stderr}");
    }
    assert!(output.stdout.is_empty(), "{output:?}");
}

/// Waits for a process to end.
#[track_caller]
pub fn ended(up: &mut Up) -> Output {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(status) = up.child.try_wait().unwrap() {
            return Output { status, stdout: Vec::new(), stderr: up.errors().into_bytes() };
        }
        assert!(Instant::now() < deadline, "it does not end: {}", up.errors());
        thread::sleep(Duration::from_millis(5));
    }
}

/// Reads lines from a running command.
pub fn read_line(from: &mut impl Read) -> String {
    let (mut line, mut byte) = (Vec::new(), [0]);
    while from.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}

/// The three transports, each on loopback alone.
pub const EACH: [&str; 3] = ["http://127.0.0.1:0", "quic://127.0.0.1:0", "iroh://127.0.0.1:0"];

/// `--listen` for loopback over QUIC: what most tests need.
pub const LOCAL: [&str; 2] = ["--listen", "quic://127.0.0.1:0"];

/// An answer to [`http_get`].
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// One request with nothing but sockets. HTTP 1.0, so that the body comes as it is.
pub fn http_get(url: &str, token: Option<&str>, range: Option<&str>) -> Answer {
    let rest = url.strip_prefix("http://").unwrap();
    let (host, path) = rest.split_once('/').unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    let bearer = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let range = range.map(|range| format!("Range: {range}\r\n")).unwrap_or_default();
    write!(stream, "GET /{path} HTTP/1.0\r\nHost: {host}\r\n{bearer}{range}\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: answer[end + 4..].to_vec() }
}
