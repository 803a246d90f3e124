//! What the loopback device carries while a clock runs.

use std::time::Duration;

use crate::Result;

/// Longer than a transport keeps back an acknowledgement, which belongs to what it acknowledges.
const ACKNOWLEDGED: Duration = Duration::from_millis(50);

/// A count that has begun. Whatever else is on the device is in it, so nothing else may be.
pub struct Wire(u64);

impl Wire {
    /// Counts from here.
    pub fn begin() -> Result<Self> {
        Ok(Self(carried()?))
    }

    /// The bytes since, with all headers. It waits for acknowledgements: call it when the clock has been read.
    pub async fn end(self) -> Result<f64> {
        tokio::time::sleep(ACKNOWLEDGED).await;
        Ok((carried()? - self.0) as f64)
    }
}

/// The bytes that the device has taken since the machine started.
fn carried() -> Result<u64> {
    let devices = std::fs::read_to_string("/proc/net/dev")?;
    let line = devices.lines().find_map(|line| line.trim().strip_prefix("lo:")).ok_or("there is a loopback device")?;
    Ok(line.split_whitespace().next().ok_or("its bytes come first")?.parse()?)
}
