//! `bench/hot_path.txt`: a line for each figure, and one for each thing that decides them besides
//! this repository.

use std::{collections::BTreeMap, env, fs, path::Path, process::Command};

use anyhow::{Context, Result};

use super::Cost;

/// What decides the figures besides this repository.
pub(super) type Host = BTreeMap<String, String>;

/// What is recorded.
pub(super) struct Recorded(BTreeMap<String, String>);

/// What this machine has.
pub(super) fn here() -> Result<Host> {
    let rustc = env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let ldd = first_line("ldd", &["--version"])?;
    let glibc = ldd.rsplit(' ').next().unwrap_or_default().to_owned();
    // The same source takes other ways with other vector units.
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let avx2 = flags.split_whitespace().any(|flag| flag == "avx2");
    let cpu = format!("{}{}", env::consts::ARCH, if avx2 { " avx2" } else { "" });
    let host = [
        ("rustc", first_line(&rustc, &["-V"])?),
        ("glibc", glibc),
        ("valgrind", first_line("valgrind", &["--version"])?),
        ("cpu", cpu),
    ];
    Ok(host.map(|(name, value)| (name.to_owned(), value)).into())
}

fn first_line(program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(args)
        .output()
        .with_context(|| format!("{program} is needed (tests/setup.sh installs valgrind)"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

impl Recorded {
    pub(super) fn read(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        Ok(Self::of(&text))
    }

    fn of(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let pairs = lines.filter_map(|line| line.split_once(": "));
        Self(
            pairs
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        )
    }

    /// Why the figures cannot be compared with those of this host.
    pub(super) fn differs(&self, host: &Host) -> Option<String> {
        host.iter().find_map(|(name, here)| {
            let there = self.0.get(name).map_or("nothing", String::as_str);
            (there != here).then(|| format!("recorded with {name} {there:?}, here is {here:?}"))
        })
    }

    pub(super) fn cost(&self, name: &str) -> Result<Cost> {
        let figure = |what: &str| {
            let text = self.0.get(&format!("{name} {what}"));
            let text = text.with_context(|| format!("bench/hot_path.txt lacks {name} {what}"))?;
            text.parse::<f64>()
                .with_context(|| format!("{name} {what}"))
        };
        Ok(Cost {
            instructions: figure("instructions")?,
            allocations: figure("allocations")?,
        })
    }
}

pub(super) fn write(file: &Path, host: &Host, costs: &[(&str, Cost)]) -> Result<()> {
    fs::write(file, text(host, costs))?;
    println!("recorded in {}", file.display());
    Ok(())
}

fn text(host: &Host, costs: &[(&str, Cost)]) -> String {
    let mut text =
        "# What a tools/call costs the data plane, written by `make guard-record`.\n".to_owned();
    for (name, value) in host {
        text.push_str(&format!("{name}: {value}\n"));
    }
    for (name, cost) in costs {
        text.push_str(&format!(
            "{name} instructions: {:.0}\n{name} allocations: {:.2}\n",
            cost.instructions, cost.allocations
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(rustc: &str) -> Host {
        [("rustc".to_owned(), rustc.to_owned())].into()
    }

    #[test]
    fn what_is_written_is_read_again() {
        let cost = Cost {
            instructions: 12_345.0,
            allocations: 6.25,
        };
        let recorded = Recorded::of(&text(&host("1.95"), &[("legacy", cost)]));
        assert_eq!(recorded.cost("legacy").unwrap(), cost);
        assert!(recorded.cost("modern").is_err());
        assert_eq!(recorded.differs(&host("1.95")), None);
        assert!(recorded.differs(&host("1.96")).unwrap().contains("1.96"));
    }
}
