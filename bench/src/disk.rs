//! What the disk alone takes for what a folder's rows do: no network, no hashes but where a line says so. Each is
//! one call and answers its seconds; `folder.py` calls them.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::Instant,
};

use contest::argument;

use crate::{Result, child::say};

/// All files below a folder, each looked at, but the tools' own.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for item in fs::read_dir(folder)? {
            let path = item?.path();
            let kind = fs::symlink_metadata(&path)?;
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if [".syncline", ".stfolder", ".stignore"].iter().any(|own| name.starts_with(own)) {
                continue;
            }
            match kind.is_dir() {
                true => folders.push(path),
                false => found.push(path),
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Copies these files of a folder and brings them to the disk in one go.
fn copy(from: &Path, to: &Path, which: &[PathBuf]) -> Result<()> {
    let mut buffer = vec![0; 1 << 20];
    for file in which {
        let at = to.join(file.strip_prefix(from)?);
        fs::create_dir_all(at.parent().ok_or("a file is in a folder")?)?;
        let (mut source, mut target) = (File::open(file)?, File::create(at)?);
        loop {
            match source.read(&mut buffer)? {
                0 => break,
                read => target.write_all(&buffer[..read])?,
            }
        }
    }
    Ok(rustix::fs::syncfs(File::open(to)?)?)
}

/// A small file with its bytes and its name on the disk.
fn small(folder: &Path, number: u32) -> Result<()> {
    let (new, name) = (folder.join("new"), folder.join(format!("file {number}")));
    let mut file = File::create(&new)?;
    file.write_all(&[7; 16])?;
    file.sync_all()?;
    fs::rename(new, name)?;
    Ok(File::open(folder)?.sync_all()?)
}

/// Reads a whole file and hashes it, as whoever must learn what has changed in it, and writes 64 KiB of another.
fn again(file: &Path, copy: &Path) -> Result<()> {
    let (mut file, mut hasher, mut buffer) = (File::open(file)?, blake3::Hasher::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => hasher.update(&buffer[..read]),
        };
    }
    std::hint::black_box(hasher.finalize());
    let mut copy = fs::OpenOptions::new().write(true).open(copy)?;
    copy.seek(SeekFrom::Start(0))?;
    copy.write_all(&buffer[..64 << 10])?;
    Ok(copy.sync_data()?)
}

/// `disk copy FROM TO`, `disk walk FOLDER`, `disk some FROM TO COUNT`, `disk small FOLDER`, `disk again FILE COPY`.
pub fn disk() -> Result<()> {
    let place: PathBuf = argument(3);
    let started = Instant::now();
    let seconds = match argument::<String>(2).as_str() {
        "copy" => {
            let to: PathBuf = argument(4);
            fs::create_dir_all(&to)?;
            copy(&place, &to, &files(&place)?)?;
            started.elapsed().as_secs_f64()
        }
        "walk" => {
            files(&place)?;
            started.elapsed().as_secs_f64()
        }
        "some" => {
            let (to, count): (PathBuf, usize) = (argument(4), argument(5));
            fs::create_dir_all(&to)?;
            let all = files(&place)?;
            let step = (all.len() / count).max(1);
            let some: Vec<_> = all.into_iter().step_by(step).take(count).collect();
            copy(&place, &to, &some)?;
            started.elapsed().as_secs_f64()
        }
        "small" => {
            let mut times = Vec::new();
            for number in 0..50 {
                let started = Instant::now();
                small(&place, number)?;
                times.push(started.elapsed().as_secs_f64());
            }
            contest::median_and_p99(&mut times).0
        }
        "again" => {
            again(&place, &argument::<PathBuf>(4))?;
            started.elapsed().as_secs_f64()
        }
        other => return Err(format!("no such work of the disk: {other}").into()),
    };
    say(&[("seconds", seconds)]);
    Ok(())
}
