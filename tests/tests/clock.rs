//! Logs whose clock is set.

use bulla_tests::clock;

#[test]
fn times_go_back_between_segments_only() {
    clock::times_go_back_between_segments_only().unwrap();
}
