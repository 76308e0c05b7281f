//! A bad range gets its bytes back, whatever dies in the middle; bytes that are not its own never.

use highwater_env::{Loss, SimDisk};

use super::*;
use crate::check::tests::{three, whole};
use crate::log::PartitionLog;
use crate::manifest::PartitionManifest;
use crate::test_support::{batch, cache, config, owner};

fn bytes_of(reader: &PartitionReader<SimDisk>, base: Offset) -> Vec<u8> {
    let (segment, wanted) = reader.segment(base).expect("there");
    let disk = reader.shared.files.disk();
    let mut bytes = disk.content(&segment.name.log_path()).expect("read");
    bytes.truncate(wanted.len_bytes as usize);
    bytes
}

fn log_path(reader: &PartitionReader<SimDisk>, base: Offset) -> PathBuf {
    reader.segment(base).expect("there").0.name.log_path()
}

fn mend(reader: &PartitionReader<SimDisk>, base: Offset, right: &[u8]) -> Result<(), MendError> {
    let mut mend = reader.mend(base)?;
    for piece in right.chunks(300) {
        mend.push(piece)?;
    }
    mend.put_back()
}

#[test]
fn sealed_growing_and_missing_segments_are_whole_again() {
    for segment in 0..3 {
        for missing in [false, true] {
            let disk = SimDisk::new();
            let mut log = three(&disk);
            let reader = log.reader();
            let segments = reader.segments();
            let base = segments[segment].base_offset;
            let right = bytes_of(&reader, base);
            if missing && segments[segment].sealed {
                disk.remove_file(&log_path(&reader, base)).expect("gone");
            } else {
                disk.flip_bit(&log_path(&reader, base), 130, 2)
                    .expect("rot");
            }
            assert!(whole(&reader, base).is_err());
            mend(&reader, base, &right).expect("mended");
            assert!(whole(&reader, base).is_ok());
            assert!(
                !disk
                    .exists(&log_path(&reader, base).with_extension(MEND))
                    .expect("asked")
            );
            // Readers and the writer go on.
            let read = reader.verifying().read(base, 1 << 20, Offset(u64::MAX));
            assert_eq!(read.expect("read"), right);
            let next = log.next_offset().0;
            log.append(&batch(next, &[9_000], 40)).expect("appended");
            assert!(whole(&reader, segments[2].base_offset).is_ok());
        }
    }
}

#[test]
fn other_bytes_are_refused_and_change_nothing() {
    let disk = SimDisk::new();
    let log = three(&disk);
    let reader = log.reader();
    let base = reader.segments()[0].base_offset;
    let right = bytes_of(&reader, base);
    let mut wrong = right.clone();
    wrong[200] ^= 1;
    let longer = [&right[..], b"x"].concat();
    for other in [&wrong, &longer, &right[..100].to_vec()] {
        let refused = mend(&reader, base, other).expect_err("not its own");
        assert!(matches!(refused, MendError::Differs { .. }), "{refused}");
        assert_eq!(bytes_of(&reader, base), right);
    }
}

/// Each call of the disk fails in turn, the power goes there, and whatever was lost: the segment is
/// bad as before or whole, what was whole stays whole, and mending it again succeeds.
#[test]
fn power_losses_at_every_call_leave_it_bad_or_whole() {
    for segment in [0, 2] {
        for call in 0.. {
            let disk = SimDisk::new();
            let log = three(&disk);
            log.sync_dirty().expect("durable");
            let manifest = log.freeze();
            let reader = log.reader();
            let base = manifest.segments[segment].base_offset;
            let right = bytes_of(&reader, base);
            disk.flip_bit(&log_path(&reader, base), 130, 2)
                .expect("rot");
            let before = disk.calls();
            disk.stop_after(call);
            let mended = mend(&reader, base, &right).is_ok();
            if mended && disk.calls() - before < call {
                break;
            }
            let disk = disk.crash(Loss::Random { seed: call });
            check_after(&disk, &manifest, (base, &right));
        }
    }
}

fn check_after(disk: &SimDisk, manifest: &PartitionManifest, (base, right): (Offset, &[u8])) {
    let files = cache(disk.clone());
    let dir = crate::partition_dir(Path::new("/p"), (crate::test_support::tp(0), 0));
    let log = PartitionLog::open(&files, owner(0), &dir, manifest, config()).expect("opened");
    let reader = log.reader();
    for other in reader.segments() {
        if other.base_offset != base {
            assert!(whole(&reader, other.base_offset).is_ok());
        }
    }
    if whole(&reader, base).is_ok() {
        assert_eq!(bytes_of(&reader, base), right);
    } else {
        mend(&reader, base, right).expect("mended at last");
        assert!(whole(&reader, base).is_ok());
    }
    reader.remove_leftovers(base).expect("removed");
    assert!(
        !disk
            .exists(&log_path(&reader, base).with_extension(MEND))
            .expect("asked")
    );
}
