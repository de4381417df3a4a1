//! How long a provider asks to wait: `Retry-After` as seconds or as a date, and in milliseconds in a header of some.

use std::time::{Duration, SystemTime};

use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};

use autopack_shared::runtime::clock::{Clock as _, SystemClock};

/// Reads the headers of an answer.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let wall = SystemClock::default().wall().as_millis();
    read(headers, SystemTime::UNIX_EPOCH + Duration::from_millis(wall.unsigned_abs()))
}

/// The same at a moment. A date counts from the answer's own `Date`, so that no clock of this machine matters; from `now`
/// where there is none. What lies in the past is no wait.
fn read(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let whole = |text: Option<&str>| text.and_then(|text| text.parse::<u64>().ok());
    let date = |text: Option<&str>| text.and_then(|text| httpdate::parse_http_date(text).ok());
    let after = text(RETRY_AFTER.as_str());
    let until = || {
        let from = date(text(DATE.as_str())).unwrap_or(now);
        Some(date(after)?.duration_since(from).unwrap_or_default())
    };
    let millis = whole(text("retry-after-ms")).map(Duration::from_millis);
    millis.or_else(|| whole(after).map(Duration::from_secs)).or_else(until)
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderName;

    use super::*;

    fn wait(pairs: &[(&'static str, &str)]) -> Option<u64> {
        let pairs = pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        let now = httpdate::parse_http_date("Wed, 21 Oct 2015 07:00:00 GMT").unwrap();
        read(&pairs.collect(), now).map(|wait| u64::try_from(wait.as_millis()).unwrap())
    }

    #[test]
    fn seconds_milliseconds_and_dates_are_read() {
        assert_eq!(wait(&[("retry-after", " 7")]), Some(7000));
        assert_eq!(wait(&[("retry-after", "7"), ("retry-after-ms", "1500")]), Some(1500));
        assert_eq!(wait(&[("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT")]), Some(28 * 60_000));
        let date = ("date", "Wed, 21 Oct 2015 07:27:50 GMT");
        assert_eq!(wait(&[("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT"), date]), Some(10_000), "by its own clock");
        assert_eq!(wait(&[("retry-after", "Wed, 21 Oct 2015 06:28:00 GMT")]), Some(0));
    }

    #[test]
    fn what_says_nothing_is_no_wait() {
        for odd in ["", "-1", "soon", "99999999999999999999999", "Wed, 99 Oct 2015 07:28:00 GMT"] {
            assert_eq!(wait(&[("retry-after", odd)]), None, "{odd}");
        }
        assert_eq!(wait(&[]), None);
    }
}
