//! Sealed tokens ([`KeyRing`]): nobody makes one but who has a key, and none opens for another binding.

use std::{sync::LazyLock, time::Duration};

use mcp_dataplane::sealed::{Binding, KeyRing};

use crate::byte;

static RING: LazyLock<KeyRing> = LazyLock::new(|| KeyRing::of(&[[1; 32], [2; 32]]));

const MINE: Binding<'static> = Binding {
    purpose: "session",
    gateway: "default/a",
    principal: "bearer:1",
};

/// The first byte says what the rest is.
///
/// # Panics
/// A law is broken.
pub fn check(mut data: &[u8]) {
    match byte(&mut data) % 3 {
        0 => forged(data),
        1 => changed(data),
        _ => rebound(data),
    }
}

/// A token that was not made with the ring.
fn forged(token: &[u8]) {
    let token = String::from_utf8_lossy(token);
    assert!(
        RING.open::<serde_json::Value>(&token, MINE).is_none(),
        "{token} opens"
    );
}

fn seal(value: &str, binding: Binding<'_>) -> String {
    RING.seal(value, Duration::from_secs(600), binding)
        .expect("the system has randomness")
}

/// Our own token with a change: place, then what is there instead.
fn changed(mut data: &[u8]) {
    let (place, with) = (usize::from(byte(&mut data)), byte(&mut data));
    let value = String::from_utf8_lossy(data);
    let token = seal(&value, MINE);
    let opened = RING
        .open::<String>(&token, MINE)
        .expect("our own token opens");
    assert_eq!(opened.value, value);
    let mut other = token.clone().into_bytes();
    let place = place % (other.len() + 1);
    match other.get_mut(place) {
        Some(at) => *at = with,
        None => other.push(with),
    }
    if other != token.as_bytes() {
        forged(&other);
    }
}

/// A token for the binding of a text cut in three, opened for the same text cut elsewhere.
fn rebound(mut data: &[u8]) {
    let cuts = [(); 4].map(|()| usize::from(byte(&mut data)));
    let text = String::from_utf8_lossy(data);
    let [sealed, opened] = [(cuts[0], cuts[1]), (cuts[2], cuts[3])].map(|(a, b)| cut(&text, a, b));
    let token = seal("x", binding(sealed));
    let opens = RING.open::<String>(&token, binding(opened)).is_some();
    assert_eq!(opens, sealed == opened, "{sealed:?} and {opened:?}");
}

fn cut(text: &str, first: usize, second: usize) -> [&str; 3] {
    let first = text.floor_char_boundary(first.min(text.len()));
    let (a, rest) = text.split_at(first);
    let second = rest.floor_char_boundary(second.min(rest.len()));
    let (b, c) = rest.split_at(second);
    [a, b, c]
}

const fn binding([purpose, gateway, principal]: [&str; 3]) -> Binding<'_> {
    Binding {
        purpose,
        gateway,
        principal,
    }
}
