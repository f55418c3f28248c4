//! Where the home of a principal is, as this gateway knows it.

#![allow(clippy::unwrap_used)]

use mcp_fleet_homes::message::Instruction;
use mcp_fleet_homes::view::ViewId;

use super::*;

fn member(pod: &str) -> Member {
    Member { pod_uid: pod.into(), epoch: "1".into() }
}

fn view(number: u64, pods: &[&str]) -> View {
    View::new(ViewId { term: 7, number }, pods.iter().map(|pod| member(pod)))
}

/// Sends a beat, and lets the leader answer it with this.
fn instruct(homes: &Homes, instruction: Instruction) {
    answer(homes, instruction, None);
}

fn answer(homes: &Homes, instruction: Instruction, current: Option<View>) {
    let Beat { term, number, .. } = homes.beat(true).unwrap();
    homes.receive(Answer { term, number, lease_ms: 60_000, instruction }, 0, current, || {});
}

#[test]
fn what_an_answer_says_about_others_counts_unless_it_is_out_of_date() {
    let homes = Homes::default();
    homes.connect(7, member("a"));
    let beats = [0; 3].map(|_| homes.beat(true).unwrap());
    let mut heard = Vec::new();
    let mut receive = |term, number| {
        let answer = Answer { term, number, lease_ms: 60_000, instruction: Instruction::Wait };
        homes.receive(answer, 0, None, || heard.push(number));
    };
    receive(6, beats[0].number);
    receive(7, beats[1].number);
    receive(7, beats[0].number);
    receive(7, beats[1].number);
    receive(7, beats[2].number);
    assert_eq!(heard, [beats[1].number, beats[2].number]);
}

#[test]
fn waiting_for_a_home_is_no_part_of_a_request_that_need_not() {
    let homes = Homes::default();
    assert!(size_of_val(&homes.find("p")) <= 80, "{} bytes", size_of_val(&homes.find("p")));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_could_not_be_delivered_waits_for_another_home() {
    let homes = Arc::new(Homes::default());
    homes.connect(7, member("a"));
    instruct(&homes, Instruction::Apply(view(1, &["a", "b"])));
    let both = view(1, &["a", "b"]);
    let theirs = (0..100).map(|number| format!("p-{number}")).find(|uid| *both.home(uid).unwrap().pod_uid == *"b");
    let (theirs, at_b) = (theirs.unwrap(), Place::At("b".into()));
    let find = |timeout| {
        let (homes, theirs, at_b) = (Arc::clone(&homes), theirs.clone(), at_b.clone());
        let deadline = (tokio::time::Instant::now() + timeout).into_std();
        async move { homes.find_elsewhere(&theirs, Some(&at_b), deadline).await }
    };
    assert_eq!(find(Duration::from_secs(5)).await, at_b, "nothing changes");
    let waiting = tokio::spawn(find(Duration::from_secs(5)));
    tokio::task::yield_now().await;
    instruct(&homes, Instruction::Prepare(view(2, &["a"])));
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished(), "it is being decided");
    instruct(&homes, Instruction::Apply(view(2, &["a"])));
    assert_eq!(waiting.await.unwrap(), Place::Here);
    // The process before this one in the same pod is no place to forward to.
    let restarted = Homes::default();
    restarted.connect(7, Member { epoch: "2".into(), ..member("b") });
    instruct(&restarted, Instruction::Apply(both.clone()));
    assert_eq!(restarted.find(&theirs).await, Place::Undecided);
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_leaves_knows_where_its_principals_go() {
    let homes = Homes::default();
    assert_eq!(homes.find("p").await, Place::Here, "nobody decides homes");
    homes.connect(7, member("a"));
    assert_eq!(homes.find("p").await, Place::Undecided);
    let both = view(1, &["a", "b"]);
    instruct(&homes, Instruction::Apply(both.clone()));
    let of = |pod: &str| {
        let mut principals = (0..100).map(|number| format!("p-{number}"));
        principals.find(|principal| *both.home(principal).unwrap().pod_uid == *pod).unwrap()
    };
    let (ours, theirs) = (of("a"), of("b"));
    let at_b = Place::At("b".into());
    assert_eq!((homes.find(&ours).await, homes.find(&theirs).await), (Place::Here, at_b.clone()));
    // Whoever moves has no home until the view is applied.
    instruct(&homes, Instruction::Prepare(view(2, &["b"])));
    assert_eq!((homes.find(&ours).await, homes.find(&theirs).await), (Place::Undecided, at_b.clone()));
    for _ in 0..2 {
        instruct(&homes, Instruction::Wait);
        assert_eq!((homes.find(&ours).await, homes.find(&theirs).await), (at_b.clone(), at_b.clone()));
    }
    assert!(homes.try_enter(&ours).is_none());
    let before = tokio::time::Instant::now();
    assert_eq!(homes.enter(&ours, Absence::Leave).await, Err(NoHome::Elsewhere));
    assert_eq!(before.elapsed(), Duration::ZERO);
    assert!(matches!(homes.enter(&ours, Absence::Wait).await, Err(NoHome::Denied(_))));
    assert!(before.elapsed() > Duration::from_secs(1), "it might come back");
    let before = tokio::time::Instant::now();
    assert!(matches!(homes.enter(&ours, Absence::Refuse).await, Err(NoHome::Denied(_))));
    assert_eq!(before.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_leaves_forwards_by_the_view_that_it_is_told() {
    let pods = ["b", "c"];
    let at = |view: &View, principal: &str| Place::At(Arc::clone(&view.home(principal).unwrap().pod_uid));
    let (without_c, with_c) = (view(2, &["b"]), view(3, &pods));
    let moves =
        (0..100).map(|number| format!("p-{number}")).find(|uid| at(&with_c, uid) == Place::At("c".into())).unwrap();
    let leaving = Homes::default();
    leaving.connect(7, member("a"));
    instruct(&leaving, Instruction::Apply(view(1, &["a", "b"])));
    instruct(&leaving, Instruction::Prepare(without_c.clone()));
    answer(&leaving, Instruction::Wait, Some(without_c));
    assert_eq!(leaving.find(&moves).await, Place::At("b".into()));
    answer(&leaving, Instruction::Wait, Some(with_c.clone()));
    assert_eq!(leaving.find(&moves).await, Place::At("c".into()));
    // A leader of an earlier version says nothing of it.
    answer(&leaving, Instruction::Wait, None);
    assert_eq!(leaving.find(&moves).await, Place::At("c".into()));
    assert!(leaving.try_enter(&moves).is_none());
    // One that is new has no clients yet, and soon is a home.
    let new = Homes::default();
    new.connect(7, member("d"));
    answer(&new, Instruction::Wait, Some(with_c));
    assert_eq!(new.find(&moves).await, Place::Undecided);
}

#[test]
fn calls_that_wait_for_shares_ask_together() {
    let homes = Homes::default();
    let first = homes.ask_at();
    let second = homes.ask_at();
    assert!(first <= tokio::time::Instant::now() && second >= first + ASK_INTERVAL);
    for _ in 0..100 {
        // One that begins so late that the second has passed asks at another time.
        let next = homes.ask_at();
        assert!(next == second || tokio::time::Instant::now() >= second, "calls ask for themselves");
    }
}
