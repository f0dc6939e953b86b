//! What lies under the state: which file system, how much room.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::store;

/// File systems that a state folder should not be on: `true` where locks or syncs cannot be trusted, `false` where the
/// state does not outlive a restart. Numbers of `statfs(2)`.
const STRANGE: &[(u32, bool, &str)] = &[
    (0x6969, true, "NFS: file locks and syncs over a network cannot be trusted"),
    (0xFF53_4D42, true, "CIFS: file locks and syncs over a network cannot be trusted"),
    (0xFE53_4D42, true, "SMB: file locks and syncs over a network cannot be trusted"),
    (0x0102_1997, true, "9P: file locks and syncs over a network cannot be trusted"),
    (0x6573_5546, true, "FUSE: whether a sync reaches a disk is not known"),
    (0x0102_1994, false, "a tmpfs: everything is gone after a restart of the machine"),
    (0x794C_7630, false, "a container's own layer (overlayfs): everything is gone with the container; mount a volume"),
];

/// What is wrong with the file system of a folder, and whether it must not be.
#[must_use]
pub fn file_system(path: &Path) -> Option<(bool, &'static str)> {
    let kind = u32::try_from(rustix::fs::statfs(path).ok()?.f_type).ok()?;
    STRANGE.iter().find(|(number, _, _)| *number == kind).map(|(_, bad, what)| (*bad, *what))
}

/// Free bytes, and whether they are enough.
#[must_use]
pub fn room(path: &Path) -> Option<(u64, bool)> {
    store::free_bytes(path).map(|free| (free, free >= store::MIN_FREE))
}

/// Whether two folders are on one file system.
#[must_use]
pub fn same_disk(a: &Path, b: &Path) -> bool {
    let device = |p: &Path| std::fs::metadata(p).map(|m| m.dev()).ok();
    device(a) == device(b)
}
