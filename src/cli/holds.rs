#[derive(Debug, clap::Subcommand)]
pub enum Holds {
    Ls,
}
pub async fn run(_: Holds, _: &mut impl std::io::Write) -> anyhow::Result<super::Exit> {
    Ok(super::Exit::Ok)
}
