//! Nobody is really asked here: backends are taken out of the queue by hand.

use fleet_proto::{
    hash::Hash,
    key::{Key, Kind},
};
use futures_util::FutureExt;

use super::*;
use crate::{
    backend::Parts,
    catalog::{About, Catalog, Lists},
    telemetry::Metrics,
    upstream::Upstream,
};

fn backend(discovery: &Arc<Discovery>, name: &str) -> Arc<Backend> {
    let key = Arc::new(Key::new("default", Kind::Backend, name));
    let backend = Arc::new(Backend::new(Parts {
        serial: 1,
        fingerprint: Hash::of(b""),
        runtime: Hash::of(b""),
        timeout: Duration::from_secs(1),
        max_duration: Duration::from_secs(1),
        upstream: Upstream::broken(name.to_owned(), "a test has no server".to_owned()),
        catalog: Catalog::new(Arc::default(), None),
        metrics: Metrics::new(1).backend(&key),
        key,
    }));
    let home = (discovery.clone(), Arc::downgrade(&backend));
    assert!(backend.catalog.place.home.set(home).is_ok());
    backend
}

/// Who is asked now; `None`: nobody yet.
fn next(discovery: &Discovery) -> Option<String> {
    let backend = discovery.next().now_or_never()?;
    Some(backend.unwrap().name().to_owned())
}

#[tokio::test(start_paused = true)]
async fn who_is_unknown_comes_before_who_is_known_and_each_is_asked_once() {
    let discovery = Arc::<Discovery>::default();
    let [a, b, c] = ["a", "b", "c"].map(|name| backend(&discovery, name));
    a.catalog.told(About::default(), Lists::default());
    for backend in [&a, &b, &c, &a, &b] {
        backend.catalog.ask();
    }
    // It says that its lists have changed: it moves up.
    a.catalog.want();
    let asked: Vec<_> = std::iter::from_fn(|| next(&discovery)).collect();
    assert_eq!(asked, ["b", "c", "a"]);
    assert_eq!(discovery.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_changes_while_it_is_asked_is_asked_again() {
    let discovery = Arc::<Discovery>::default();
    let a = backend(&discovery, "a");
    a.catalog.ask();
    assert_eq!(next(&discovery).as_deref(), Some("a"));
    a.catalog.want();
    assert_eq!(next(&discovery), None);
    discovery.asked(&a, true);
    assert_eq!(discovery.next().await.unwrap().name(), "a");
    discovery.asked(&a, true);
    assert!(!a.catalog.is_wanted());
}

#[tokio::test(start_paused = true)]
async fn who_changes_all_the_time_is_asked_four_times_a_second() {
    let discovery = Arc::<Discovery>::default();
    let a = backend(&discovery, "a");
    let begun = Instant::now();
    for _ in 0..9 {
        for _ in 0..100 {
            a.catalog.want();
        }
        assert_eq!(discovery.next().await.unwrap().name(), "a");
        a.catalog.want();
        discovery.asked(&a, true);
    }
    let took = begun.elapsed();
    assert!(took >= REST * 8 && took < REST * 9, "{took:?}");
    // What was wanted while it was asked is not forgotten.
    assert_eq!(discovery.next().await.unwrap().name(), "a");
}

#[tokio::test(start_paused = true)]
async fn who_fails_is_asked_after_pauses_that_double_however_often_its_list_is_wanted() {
    let discovery = Arc::<Discovery>::default();
    let a = backend(&discovery, "a");
    a.catalog.ask();
    let mut pauses = Vec::new();
    for _ in 0..7 {
        let begun = Instant::now();
        assert_eq!(discovery.next().await.unwrap().name(), "a");
        pauses.push(begun.elapsed().as_secs());
        a.catalog.failed("refused".to_owned());
        discovery.asked(&a, false);
        for _ in 0..10 {
            a.catalog.touch();
        }
        assert_eq!(next(&discovery), None);
    }
    assert_eq!(pauses, [0, 1, 2, 4, 8, 16, 30]);
}

#[tokio::test(start_paused = true)]
async fn who_is_gone_is_passed_over() {
    let discovery = Arc::<Discovery>::default();
    let [a, b] = ["a", "b"].map(|name| backend(&discovery, name));
    a.catalog.ask();
    b.catalog.ask();
    drop(a);
    assert_eq!(next(&discovery).as_deref(), Some("b"));
    discovery.close();
    b.catalog.want();
    assert_eq!(discovery.waiting(), 0);
    assert!(discovery.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn many_whose_lists_are_known_are_asked_at_leisure() {
    let discovery = Arc::<Discovery>::default();
    let all: Vec<_> = (0..1_000)
        .map(|n| backend(&discovery, &format!("b{n}")))
        .collect();
    for backend in &all {
        backend.catalog.told(About::default(), Lists::default());
        backend.catalog.ask();
    }
    let begun = Instant::now();
    for _ in 0..all.len() {
        discovery.next().await.unwrap();
    }
    let took = begun.elapsed();
    assert!(took > Duration::from_secs(1), "{took:?}");
    assert!(took < Duration::from_secs(4), "{took:?}");
}
