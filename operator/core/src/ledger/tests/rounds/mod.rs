//! Random fault rounds in virtual time: the real ledgers of two operators that both lead, and the real lease pools of three
//! gateways. A round is a sequence of random steps, most of them faults, after which everything is healed and drained.
//! The seed of a round decides everything in it, and is printed if the round fails.

mod store;
mod world;

use world::World;

/// Random steps in one round.
const STEPS: usize = 100;

async fn round(seed: u64) -> u64 {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step().await;
        world.check();
    }
    world.drain().await;
    world.calls()
}

/// Plays rounds, each in a runtime of its own whose clock is paused.
fn play(seeds: std::ops::Range<u64>) {
    let (rounds, mut calls) = (seeds.end - seeds.start, 0);
    for seed in seeds {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(round(seed))));
        match result {
            Ok(made) => calls += made,
            Err(panic) => {
                println!("the round with seed {seed} failed");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("{rounds} rounds of {STEPS} steps, {calls} calls");
    assert!(calls > rounds, "hardly any call was admitted");
}

#[test]
fn no_round_of_faults_spends_more_than_is_charged() {
    play(0..300);
}

#[test]
#[ignore = "takes minutes: `cargo xtask test governors`"]
fn no_round_of_ten_thousand_spends_more_than_is_charged() {
    play(1_000..11_000);
}
