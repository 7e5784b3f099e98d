//! What the program tells a shell about itself.

use std::process::{Command, Stdio};

use super::program::{program, succeed, text};

fn print(arguments: &[&str]) -> String {
    let mut command = program();
    command.args(arguments);
    text(&succeed(command).stdout)
}

#[test]
fn bash_completes_commands_options_and_values() {
    const ASK: &str = r#"
        complete_words() {
            COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
            local function=$(complete -p mae-train | sed 's/.*-F \([^ ]*\).*/\1/')
            "$function" mae-train "${COMP_WORDS[-1]}" "${COMP_WORDS[-2]}"
            echo "${COMPREPLY[*]}"
        }
        complete_words mae-train eva
        complete_words mae-train --res
        complete_words mae-train eval --base
        complete_words mae-train eval --init p
    "#;
    let script = print(&["completions", "bash"]) + ASK;
    let Ok(output) = Command::new("bash").args(["-c", &script]).output() else {
        eprintln!("skipped: there is no bash");
        return;
    };
    let expected = "eval\n--resume\n--baseline\npretrained\n";
    assert_eq!(text(&output.stdout), expected, "{}", text(&output.stderr));
}

#[test]
fn each_command_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    print(&["man", "--out", folder.path().to_str().unwrap()]);
    let page = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    assert!(page("mae-train-eval.1").contains("baseline"));
    for page in [page("mae-train.1"), print(&["man"])] {
        assert!(page.contains("quickstart recipe"), "{page}");
    }
}

#[test]
fn a_reader_may_stop_early() {
    let mut command = program();
    command.args(["completions", "bash"]).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}
