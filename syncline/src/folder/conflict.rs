//! The names of kept versions.

use sync_core::model::{AuthorId, Timestamp};

use super::key::{FileKey, KeyProblem};

/// Where a version that lost its name is kept: `name (conflict <author> <time>).ext`.
///
/// The name follows from the version alone, so that keeping it twice gives one copy.
pub fn kept_name(key: &FileKey, author: AuthorId, timestamp: Timestamp) -> Result<FileKey, KeyProblem> {
    key.with_note(&format!("conflict {} {}", author.short(), readable(timestamp)))
}

/// A timestamp as `2026-11-20 11.15.57.123456`, in UTC: sortable, and fit for a file's name.
pub fn readable(timestamp: Timestamp) -> String {
    let micros = timestamp.0 % 1_000_000;
    let seconds = timestamp.0 / 1_000_000;
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}.{minute:02}.{second:02}.{micros:06}")
}

/// The date of a day counted from 1970-01-01 (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_version_names_its_author_and_time() {
        let key = FileKey::new(b"notes/plan.md").unwrap();
        let author = AuthorId::from([0xab; 32]);
        let kept = kept_name(&key, author, Timestamp(1_795_173_357_000_001)).unwrap();
        assert_eq!(kept.to_string(), "notes/plan (conflict ababababab 2026-11-20 11.15.57.000001).md");
    }

    #[test]
    fn dates_are_right_on_leap_days_and_at_the_ends() {
        assert_eq!(readable(Timestamp(0)), "1970-01-01 00.00.00.000000");
        assert_eq!(readable(Timestamp(951_782_400_000_000)), "2000-02-29 00.00.00.000000");
        assert_eq!(readable(Timestamp(4_107_542_399_000_000)), "2100-02-28 23.59.59.000000");
        assert!(readable(Timestamp(u64::MAX)).starts_with("586524-"));
    }
}
