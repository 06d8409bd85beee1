//! A job is changed at the very moment of its slot.

use system_tests::trial::Load;

use crate::support::{assert_well, secs, trial};

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_race_a_firing_double_and_lose_nothing() {
    let mut trial = trial(3).await;
    let load = Load::default();
    trial.put("edited", &load).await.unwrap();
    for _ in 0..3 {
        trial.change_at_slots("edited", &load).await.unwrap();
    }
    // Long enough that the slots after the last change have to be there.
    tokio::time::sleep(secs(8)).await;
    assert_well(&mut trial, "edit, pause, delete and recreate at slots").await;
}
