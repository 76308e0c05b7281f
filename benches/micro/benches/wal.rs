//! The write-ahead log on a real disk: one durable write, and many that share a sync.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures_util::future::join_all;
use highwater_env::OsEnv;
use highwater_proto::Payload;
use highwater_wal::{GroupId, LogIndex, Op, Wal, WalConfig};

/// Entries kept per group: what is older is purged, so that files are used again as in a broker.
const KEPT: u64 = 256;

struct Log {
    wal: Wal<OsEnv>,
    next: Vec<AtomicU64>,
    _dir: tempfile::TempDir,
}

impl Log {
    fn new(groups: usize) -> Self {
        // Beside the build, not in a directory that may lie in memory.
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let (wal, _) =
            Wal::open(&OsEnv::default(), dir.path(), WalConfig::default()).expect("opened");
        Self {
            wal,
            next: (0..groups).map(|_| AtomicU64::new(1)).collect(),
            _dir: dir,
        }
    }

    /// One entry of a group, durable when this returns.
    async fn write(&self, group: usize, payload: &Bytes) {
        let next = self.next.get(group).expect("a group");
        let index = next.fetch_add(1, Ordering::Relaxed);
        let mut ops = vec![Op::Append {
            index: LogIndex(index),
            payload: Payload::from(payload.clone()),
        }];
        if index.is_multiple_of(KEPT) {
            ops.push(Op::Purge {
                upto: LogIndex(index - KEPT / 2),
                meta: Bytes::new(),
            });
        }
        let group = GroupId(u32::try_from(group).expect("few"));
        self.wal.write(group, ops).await.expect("written");
    }
}

fn wal(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let mut bench = c.benchmark_group("wal");
    bench.sample_size(20);
    for (bytes, groups) in [
        (1 << 10, 1),
        (1 << 10, 24),
        (64 << 10, 1),
        (64 << 10, 24),
        (1 << 20, 1),
    ] {
        let log = runtime.block_on(async { Log::new(groups) });
        let payload = Bytes::from(vec![b'x'; bytes]);
        bench.throughput(Throughput::Bytes((bytes * groups) as u64));
        let name = format!("durable writes of {bytes} bytes at once");
        bench.bench_function(BenchmarkId::new(name, groups), |b| {
            b.iter(|| {
                runtime.block_on(join_all(
                    (0..groups).map(|group| log.write(group, &payload)),
                ))
            });
        });
        runtime.block_on(log.wal.close());
    }
    bench.finish();
}

criterion_group!(benches, wal);
criterion_main!(benches);
