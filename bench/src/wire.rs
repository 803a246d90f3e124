//! What the loopback device carries while a clock runs.

use std::time::Duration;

/// Longer than a transport keeps back an acknowledgement, which belongs to what it acknowledges.
const ACKNOWLEDGED: Duration = Duration::from_millis(50);

/// A count that has begun. Whatever else is on the device is in it, so nothing else may be.
pub struct Wire(f64);

impl Wire {
    /// Counts from here.
    pub fn begin() -> Self {
        Self(contest::carried())
    }

    /// The bytes since, with all headers. It waits for acknowledgements: call it when the clock has been read.
    pub async fn end(self) -> f64 {
        tokio::time::sleep(ACKNOWLEDGED).await;
        contest::carried() - self.0
    }
}
