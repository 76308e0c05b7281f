//! The fuzz targets over their seed corpus, over the golden batches, and over damage to both.

#[path = "common/mod.rs"]
#[allow(dead_code)]
mod common;
#[path = "../fuzz/src/targets.rs"]
#[allow(dead_code)]
mod targets;

use std::path::Path;

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut paths: Vec<_> = std::fs::read_dir(&folder)
        .expect("a corpus")
        .map(|entry| entry.expect("a directory entry").path())
        .collect();
    paths.sort();
    paths
        .iter()
        .map(|path| std::fs::read(path).expect("a seed"))
        .collect()
}

#[test]
fn every_target_takes_its_corpus_and_every_flipped_bit_of_it() {
    for (name, target) in targets::ALL {
        let seeds = corpus(name);
        assert!(seeds.len() >= 5, "{} seeds of {name}", seeds.len());
        for mut seed in seeds {
            target(&seed);
            // All bits of small seeds, some bits of each byte run of larger ones.
            let step = seed.len() * 8 / 4096 + 1;
            for bit in (0..seed.len() * 8).step_by(step) {
                seed[bit / 8] ^= 1 << (bit % 8);
                target(&seed);
                seed[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }
}

#[test]
fn every_target_takes_every_truncation_of_its_corpus() {
    for (name, target) in targets::ALL {
        for seed in corpus(name) {
            for len in (0..seed.len()).step_by(seed.len() / 1024 + 1) {
                target(&seed[..len]);
            }
        }
    }
}

#[test]
fn every_target_takes_the_golden_batches() {
    for (_, bytes, _) in common::goldens("") {
        for (_, target) in targets::ALL {
            target(&bytes);
        }
    }
}
