//! How a contestant talks to `bench/run`, which lets all contestants of a row take turns.
//!
//! A contestant prepares its work, prints `{"ready":true}`, does one round for every line on its
//! standard input (some works take a number from it), and answers each with one line of JSON: its figures
//! by name, with the peak memory and the processor time of the round beside them. It ends when its input ends.

use std::{
    fs,
    io::{BufRead, Write},
    sync::Mutex,
};

static CPU_BEFORE: Mutex<f64> = Mutex::new(0.0);

/// Waits until a round is asked for, and says what its line holds. None when there will be no more.
pub fn next_round() -> Option<u64> {
    static READY: std::sync::Once = std::sync::Once::new();
    READY.call_once(|| say("{\"ready\":true}"));
    let mut line = String::new();
    if std::io::stdin().lock().read_line(&mut line).unwrap_or(0) == 0 {
        return None;
    }
    begin();
    Some(line.trim().parse().unwrap_or(0))
}

/// Forgets the peak memory and the processor time until now. A round begins so by itself; one that
/// prepares something first calls it again when it has.
pub fn begin() {
    // The kernel sets the peak to what is resident now.
    let _ = fs::write("/proc/self/clear_refs", "5");
    *CPU_BEFORE.lock().expect("no panic while held") = cpu_seconds();
}

/// The processor time of this process since the round, or its last part, began.
pub fn cpu_of_round() -> f64 {
    cpu_seconds() - *CPU_BEFORE.lock().expect("no panic while held")
}

/// Answers a round: with its processor time and its peak memory, unless the figures say them.
pub fn report(figures: &[(&str, f64)]) {
    let own = [("cpu_s", cpu_of_round()), ("peak_mb", memory_mb("VmHWM"))];
    let own = own.iter().filter(|(name, _)| !figures.iter().any(|(other, _)| name == other));
    let all: Vec<_> = own.chain(figures).map(|(name, value)| format!("\"{name}\":{value}")).collect();
    say(&format!("{{{}}}", all.join(",")));
}

/// `VmRSS`, what is resident now, or `VmHWM`, its peak, in MB.
pub fn memory_mb(which: &str) -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(which)).unwrap_or_default();
    let kib = line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok());
    kib.map_or(f64::NAN, |kib| kib * 1024.0 / 1e6)
}

/// Processor time of this process until now, all threads, those that have ended too.
pub fn cpu_seconds() -> f64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the pointer is to a whole `rusage`, which the call fills; all zeroes are one too.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// The bytes that the loopback device has carried since the machine started, with all headers. Whatever else is on it is in
/// them.
pub fn carried() -> f64 {
    let devices = fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let line = devices.lines().find_map(|line| line.trim().strip_prefix("lo:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|bytes| bytes.parse().ok()).unwrap_or(f64::NAN)
}

/// The `at`th argument, parsed.
pub fn argument<T: std::str::FromStr>(at: usize) -> T {
    let text = std::env::args().nth(at).unwrap_or_else(|| panic!("argument {at} is missing"));
    text.parse().unwrap_or_else(|_| panic!("argument {at} cannot be `{text}`"))
}

/// The middle one, and the one below which 99 of 100 are.
pub fn median_and_p99(times: &mut [f64]) -> (f64, f64) {
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

/// A key by its number: in order, or spread over all keys.
pub fn key(n: u64, random: bool) -> String {
    if random {
        let x = n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        format!("{x:016x}/{n}")
    } else {
        format!("key/{n:012}")
    }
}

/// One line on standard output, at once.
pub fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).expect("standard output is there");
}
