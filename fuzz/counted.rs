//! What each target holds is counted, and more than it may is a failure like any other.

use sync_core::testing::memory::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;
