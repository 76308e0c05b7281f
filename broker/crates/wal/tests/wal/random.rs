//! Random runs: workloads between clean restarts, kills and power losses, against the model.

use highwater_env::{Loss, SimDisk};
use proptest::prelude::*;

use crate::support::{History, Numbers, open, run, workload};

#[derive(Debug, Clone, Copy)]
enum End {
    Close,
    Kill,
    PowerLoss(u64),
    PowerLossAt(u64, u64),
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![
        Just(End::Close),
        Just(End::Kill),
        any::<u64>().prop_map(End::PowerLoss),
        (0..150_u64, any::<u64>()).prop_map(|(at, seed)| End::PowerLossAt(at, seed)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
    #[test]
    fn restarts_of_every_kind_keep_the_acknowledged_prefix(
        sessions in prop::collection::vec((any::<u64>(), 1..120_usize, end()), 1..8),
    ) {
        let mut disk = SimDisk::new();
        let mut history = History::default();
        for (seed, count, end) in sessions {
            run(async {
                let (wal, _) = open(&disk).unwrap();
                history.check(&wal);
                if let End::PowerLossAt(at, _) = end {
                    disk.stop_after(at);
                }
                workload(&wal, &mut history, &mut Numbers(seed), count).await;
                if matches!(end, End::Close) {
                    wal.close().await;
                }
            });
            if let End::PowerLoss(seed) | End::PowerLossAt(_, seed) = end {
                disk = disk.crash(Loss::Random { seed });
            }
        }
        run(async { history.check(&open(&disk).unwrap().0) });
    }
}
