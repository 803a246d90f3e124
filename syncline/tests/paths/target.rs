// The fuzz target of paths: what a key becomes on a disk. Replayed here, explored by `fuzz/`.

use std::path::{Component, Path};

use syncline::folder::key::{FileKey, Role, TEMPORARY_DIR, link_stays_inside, role_of};

/// Whether a link so deep below the folder leads inside, whatever is a link on its way: it goes up first, no higher than
/// the folder, and then only down.
fn leads_inside(depth: usize, path: &Path) -> bool {
    let mut parts = path.components().filter(|part| *part != Component::CurDir).peekable();
    let mut up = 0;
    while parts.next_if(|part| *part == Component::ParentDir).is_some() {
        up += 1;
    }
    up <= depth && parts.all(|part| matches!(part, Component::Normal(_)))
}

fn is_inside(key: &FileKey) {
    let path = key.path();
    assert!(path.components().all(|part| matches!(part, Component::Normal(_))), "{path:?} leaves the folder");
    assert!(!path.starts_with(TEMPORARY_DIR), "{path:?} is among the files in the making");
    assert_eq!(FileKey::of_path(path).as_ref(), Ok(key), "a path and its key are the same bytes");
    assert!(key.directories().all(|directory| path.starts_with(directory) && directory != path));
}

/// A key is a file only where its path stays inside the folder; so does the name of a kept version, and a link.
pub fn paths(data: &[u8]) {
    let (key, target) = data.split_at(data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len()));
    let target = target.get(1..).unwrap_or_default();
    match role_of(key) {
        Role::File(file) => {
            assert_eq!(file.as_bytes(), key);
            is_inside(&file);
            if let Ok(kept) = file.with_note("conflict 0123456789 2026-01-01 00.00.00.000000") {
                is_inside(&kept);
                assert_eq!(kept.path().parent(), file.path().parent(), "it is beside the file");
            }
            if link_stays_inside(&file, target) {
                use std::os::unix::ffi::OsStrExt;
                let target = Path::new(std::ffi::OsStr::from_bytes(target));
                assert!(leads_inside(file.directories().count(), target), "{target:?} at {file:?} leads outside");
            }
        }
        Role::Companion(file, companion) => {
            is_inside(&file);
            assert_eq!(file.companion(companion), key);
        }
        Role::Other(_) => assert!(FileKey::new(key).is_err()),
    }
}
