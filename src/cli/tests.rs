use super::Cli;
use clap::{Command, CommandFactory as _};

/// Print no result, or another kind of text, or serve.
const WITHOUT_JSON: &[&str] = &["mount", "umount", "sync", "completions", "up"];

/// The commands that people can run, with the words after `ironfs`.
fn leaves(command: &Command, words: &str, found: &mut Vec<(String, Command)>) {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        let words = format!("{words}{}", below.get_name());
        if below.has_subcommands() {
            leaves(below, &format!("{words} "), found);
        } else {
            found.push((words, below.clone()));
        }
    }
}

fn visible() -> Vec<(String, Command)> {
    let mut found = Vec::new();
    leaves(&Cli::command(), "", &mut found);
    assert!(found.len() > 25, "all are seen");
    found
}

#[test]
fn every_command_has_examples_of_its_own() {
    for (words, command) in visible() {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let own = help.contains("Example") && help.contains(&format!("\n  ironfs {words}"));
        assert!(own, "ironfs {words} --help has no example: {help}");
    }
}

#[test]
fn every_result_can_be_had_as_json() {
    for (words, command) in visible() {
        let has = command.get_arguments().any(|argument| argument.get_long() == Some("json"));
        let wanted = !WITHOUT_JSON.contains(&words.as_str());
        assert_eq!(has, wanted, "ironfs {words}: --json");
    }
}
