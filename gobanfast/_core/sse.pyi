def encode(
    data: str | bytes | None = None,
    *,
    event: str | None = None,
    id: str | int | None = None,  # noqa: A002
    retry: int | None = None,
    comment: str | None = None,
) -> bytes: ...
