"""The sections of the configuration: a module with a dataclass for each section.

`kkdcpd.config.schema` has the table of sections. A string below a setting, or below a group of settings,
documents them: the first paragraph is for the reference, and all paragraphs are for config.toml.example. A
string below another string is a note that config.toml.example has after the section.
"""
