//! The fuzz targets over their stored seeds and a few thousand deterministic mutations of them: a smoke run of what
//! `make fuzz` does at length.

use std::{fs, path::Path};

use rand::{RngExt, SeedableRng, rngs::SmallRng};

#[path = "../fuzz/src/targets.rs"]
mod targets;

const MUTATIONS: usize = 400;

#[test]
fn every_target_survives_its_seeds_and_their_mutations() {
    for (name, run) in targets::TARGETS {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(name);
        let mut seeds: Vec<_> = fs::read_dir(&directory)
            .unwrap_or_else(|_| panic!("seeds of {name}"))
            .map(|entry| fs::read(entry.expect("an entry").path()).expect("a seed"))
            .collect();
        assert!(!seeds.is_empty(), "{name} has seeds");
        seeds.sort();
        let mut rng = SmallRng::seed_from_u64(1);
        for seed in &seeds {
            run(seed);
            for _ in 0..MUTATIONS {
                let mut bytes = seed.clone();
                mutate(&mut bytes, &mut rng);
                run(&bytes);
            }
        }
    }
}

fn mutate(bytes: &mut Vec<u8>, rng: &mut SmallRng) {
    for _ in 0..rng.random_range(1..4) {
        let at = rng.random_range(0..=bytes.len());
        match rng.random_range(0..4) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, rng.random()),
            2 if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
            _ if at < bytes.len() => drop(bytes.remove(at)),
            _ => {}
        }
    }
}
