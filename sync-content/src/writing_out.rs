//! A large file that is written is on the disk, most of it, when its last byte was written: the disk works while more
//! comes, and the sync at the end finds little to wait for.

use std::{path::Path, sync::mpsc, thread};

use crate::{ContentError, disk::DiskFile, partial::FLUSH_BYTES};

/// Is told how many bytes were written.
pub(crate) type Wrote<'a> = &'a mut dyn FnMut(u64);

/// Calls `write`, which writes `len` bytes to `file` and says so as it goes on, while another thread syncs the file
/// every [`FLUSH_BYTES`]. A smaller file has nothing of this. The sync that makes it durable is still the caller's; it
/// is not to be made after an error, which a second sync might not tell again.
pub(crate) fn writing_out<T>(
    file: &dyn DiskFile,
    path: &Path,
    len: u64,
    write: impl FnOnce(Wrote<'_>) -> Result<T, ContentError>,
) -> Result<T, ContentError> {
    if len < 2 * FLUSH_BYTES {
        return write(&mut |_| {});
    }
    thread::scope(|scope| {
        let (due, dues) = mpsc::sync_channel(1);
        let syncing = scope.spawn(move || dues.iter().try_for_each(|()| file.sync()));
        let mut unsynced = 0;
        let written = write(&mut |len| {
            unsynced += len;
            if unsynced >= FLUSH_BYTES && due.try_send(()).is_ok() {
                unsynced = 0;
            }
        });
        drop(due);
        let synced = syncing.join().expect("a sync does not panic");
        synced.map_err(ContentError::io("sync", path))?;
        written
    })
}
