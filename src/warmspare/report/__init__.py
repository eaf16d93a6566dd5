"""Reports: render one judgement, each in its format. None of them thinks again."""
