"""Operations: how they are limited, planned, batched and executed."""
