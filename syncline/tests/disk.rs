//! Disks that are full while something comes in, and go on by themselves when there is space.

#![allow(clippy::unwrap_used)] // A test may panic.

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use common::{LOCAL, Machine, equal, eventually};

/// A small disk; gone when it is dropped.
struct Disk(PathBuf);

impl Disk {
    fn new(at: PathBuf, size: &str) -> Option<Self> {
        fs::create_dir(&at).unwrap();
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(&at).output();
        if !mount.is_ok_and(|output| output.status.success()) {
            sync_core::testing::skipped("mounting a small disk needs root");
            return None;
        }
        Some(Self(at))
    }

    fn grow(&self, size: &str) {
        let grown = Command::new("mount").args(["-o", &format!("remount,size={size}")]).arg(&self.0).status().unwrap();
        assert!(grown.success());
    }

    /// A directory of a machine that lies on it.
    fn holds(&self, path: &Path) {
        let directory = self.0.join("directory");
        fs::create_dir(&directory).unwrap();
        std::os::unix::fs::symlink(directory, path).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_of_the_folder_goes_on_by_itself_when_there_is_space() {
    let (a, b) = (Machine::new(), Machine::new());
    let Some(disk) = Disk::new(b.dir.path().join("small"), "3m") else { return };
    disk.holds(&b.folder());
    for n in 0..30 {
        a.save(&format!("{n}"), vec![n; 200_000]);
    }
    let up_a = a.share(&LOCAL);
    let _up_b = b.join(&up_a.field("ticket"), &LOCAL);
    eventually("why says so", || b.done(["why"]).contains("cannot be written"), || b.done(["why"]));
    // What is deleted elsewhere goes, and gives some space.
    let there = b.files().into_keys().find(|name| !name.starts_with('.')).expect("some of it fits");
    a.done(["rm", &there]);
    eventually("it goes", || !b.files().contains_key(&there), || b.done(["why"]));
    // And what fits still comes.
    a.save("small", "x");
    disk.grow("64m");
    equal(&[&a, &b]);
    assert_eq!(b.done(["why"]).trim(), "nothing is in the way");
    let made = || std::fs::read_dir(b.path(".syncline-tmp")).map(|left| left.count()).unwrap_or_default();
    eventually("nothing is left", || made() == 0, || b.done(["why"]));
}

#[test]
fn a_full_disk_of_the_data_directory_goes_on_by_itself_when_there_is_space() {
    let (a, b) = (Machine::new(), Machine::new());
    let Some(disk) = Disk::new(b.dir.path().join("small"), "8m") else { return };
    disk.holds(&b.data());
    for n in 0..30u8 {
        a.save(&format!("{n}"), [vec![n; 399_999], vec![1]].concat());
    }
    let up_a = a.share(&LOCAL);
    let _up_b = b.join(&up_a.field("ticket"), &LOCAL);
    let says_so = || b.done(["why"]).contains("No space left");
    eventually("why says so", says_so, || b.done(["why"]));
    assert!(a.files() != b.files());
    disk.grow("128m");
    equal(&[&a, &b]);
    b.save("back", "y");
    equal(&[&a, &b]);
    eventually("nothing is in the way", || b.done(["why"]).contains("nothing is in the way"), || b.done(["why"]));
}
