//! Lengths that lie, and small batches of huge content: neither may cost memory.
//!
//! One test in a process of its own, because it measures what the process allocates.

use bytes::{BufMut, Bytes};
use highwater_proto::batch::{
    BatchError, Compression, DecodeLimits, DecompressError, HEADER_LEN, RecordBatch, RecordError,
    decompress, split_batches,
};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// What `work` allocated at most beyond what was there before.
fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let result = work();
    (result, MEMORY.peak_usage().saturating_sub(before))
}

/// A batch with a right checksum around these record bytes.
fn batch(compression: Compression, count: i32, records: &[u8]) -> Bytes {
    let mut bytes = Vec::new();
    bytes.put_i64(0);
    bytes.put_i32(i32::try_from(HEADER_LEN - 12 + records.len()).expect("short"));
    bytes.put_i32(-1);
    bytes.put_i8(2);
    bytes.put_u32(0);
    bytes.put_u16(u16::from(compression.id()));
    bytes.put_i32(count - 1);
    bytes.put_i64(0);
    bytes.put_i64(0);
    bytes.put_i64(-1);
    bytes.put_i16(-1);
    bytes.put_i32(-1);
    bytes.put_i32(count);
    bytes.put_slice(records);
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes.into()
}

#[test]
fn memory_follows_the_bytes_that_are_there() {
    lengths_that_lie();
    headers_that_lie();
    compressed_lengths_that_lie();
    bombs();
}

/// i32::MAX and 500 million as variable-length numbers.
const HUGE: [u8; 5] = [0xfe, 0xff, 0xff, 0xff, 0x0f];
const MANY: [u8; 5] = [0x80, 0x94, 0xeb, 0xdc, 0x03];

fn lengths_that_lie() {
    // A region whose first batch claims two gigabytes.
    let mut region = batch(Compression::None, 1, &[0; 7]).to_vec();
    region[8..12].copy_from_slice(&i32::MAX.to_be_bytes());
    let (found, cost) = peak(|| split_batches(region.clone().into()).next());
    assert!(
        matches!(found, Some(Err(BatchError::Truncated { .. }))),
        "{found:?}"
    );
    assert!(cost < 4 * KIB, "{cost}");
    // A count beyond what the bytes can hold is found without decoding.
    let counted = batch(Compression::None, i32::MAX, &[0; 70]);
    let (found, cost) = peak(|| RecordBatch::validate(counted.clone(), MIB));
    assert!(
        matches!(found, Err(BatchError::BadCount { .. })),
        "{found:?}"
    );
    assert!(cost < 4 * KIB, "{cost}");
    // A record, a key and a value that claim two gigabytes.
    let record = [&HUGE[..], &[0; 20]].concat();
    let key = [&[30, 0, 0, 0][..], &HUGE, &[0; 20]].concat();
    let value = [&[30, 0, 0, 0, 1][..], &HUGE, &[0; 20]].concat();
    for records in [record, key, value] {
        let (found, cost) = peak(|| first_error(&batch(Compression::None, 1, &records)));
        assert!(matches!(found, RecordError::Truncated { .. }), "{found:?}");
        assert!(cost < 4 * KIB, "{cost}");
    }
}

fn headers_that_lie() {
    let records = [&[30, 0, 0, 0, 1, 1][..], &MANY, &[0; 20]].concat();
    let (found, cost) = peak(|| first_error(&batch(Compression::None, 1, &records)));
    assert_eq!(
        found,
        RecordError::Truncated {
            field: "header count"
        }
    );
    assert!(cost < 4 * KIB, "{cost}");
    // 100,000 empty headers that are there, and over the limit.
    let mut body = vec![0, 0, 0, 1, 1, 0xc0, 0x9a, 0x0c];
    body.resize(body.len() + 200_000, 0);
    let mut records = vec![0x90, 0xb5, 0x18];
    records.extend_from_slice(&body);
    let bytes = batch(Compression::None, 1, &records);
    let (found, cost) = peak(|| first_error(&bytes));
    assert_eq!(
        found,
        RecordError::TooManyHeaders {
            count: 100_000,
            max: 1 << 16
        }
    );
    assert!(cost < 4 * KIB, "{cost}");
}

fn first_error(bytes: &Bytes) -> RecordError {
    let batch = RecordBatch::validate(bytes.clone(), MIB).expect("valid as a batch");
    let mut records = batch
        .records(&DecodeLimits::default())
        .expect("not compressed");
    match records.find_map(Result::err) {
        Some(BatchError::Record { error, .. }) => error,
        other => panic!("{other:?}"),
    }
}

fn compressed_lengths_that_lie() {
    // Snappy: a block that claims four gigabytes; one framed block that claims two.
    let raw = [0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0];
    let framed = [
        &b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01\x7f\xff\xff\xff"[..],
        &raw,
    ]
    .concat();
    // Zstandard: a window of terabytes over one byte; content in one segment of terabytes.
    let window = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff, 0x0b, 0, 0, 7];
    let segment = [
        &[0x28, 0xb5, 0x2f, 0xfd, 0xe0][..],
        &(1u64 << 40).to_le_bytes(),
        &[1, 0, 0],
    ];
    for (compression, bytes) in [
        (Compression::Snappy, raw.to_vec()),
        (Compression::Snappy, framed),
        (Compression::Zstd, window.to_vec()),
        (Compression::Zstd, segment.concat()),
    ] {
        let (_, cost) = peak(|| decompress(compression, bytes.clone().into(), 64 * MIB));
        assert!(
            cost < 2 * MIB,
            "{cost} bytes for {compression} {bytes:02x?}"
        );
    }
    // The window that was too large changes nothing about the content.
    let found = decompress(Compression::Zstd, window.to_vec().into(), MIB);
    assert_eq!(found, Ok(Bytes::from_static(&[7])));
}

fn bombs() {
    const MAX: usize = MIB;
    let zeros = vec![0; 64 * MIB];
    for compression in Compression::ALL.into_iter().skip(1) {
        let bomb = bomb(compression, &zeros);
        assert!(
            bomb.len() < 4 * MIB,
            "{} bytes of {compression}",
            bomb.len()
        );
        let (found, cost) = peak(|| decompress(compression, bomb.clone(), MAX));
        assert_eq!(
            found,
            Err(DecompressError::TooLarge {
                compression,
                max: MAX
            })
        );
        // Twice the limit while it grows, and the decoder's own window beside it.
        assert!(cost < 6 * MAX, "{cost} bytes for {compression}");
        let (found, _) = peak(|| decompress(compression, bomb, zeros.len()));
        assert_eq!(
            found.map(|found| found.len()),
            Ok(zeros.len()),
            "{compression}"
        );
    }
}

fn bomb(compression: Compression, content: &[u8]) -> Bytes {
    use highwater_proto::TimestampMs;
    use highwater_proto::batch::BatchBuilder;
    let mut builder = BatchBuilder::new(compression);
    builder
        .append(
            TimestampMs(0),
            None,
            Some(&content[..content.len() - 13]),
            [],
        )
        .expect("room");
    builder.build().slice(HEADER_LEN..)
}
