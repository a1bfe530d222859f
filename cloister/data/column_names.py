"""Words in names of columns by which their roles are guessed, in English and Chinese."""

from __future__ import annotations

# Words in names of columns, the most certain first. They must match whole words of a name.
TEXTS = (
    "text sentence content utterance note notes review body question comment description "
    "主诉 文本 正文 内容 评论 评价 问题 描述 记录"
)
# Names of two columns that hold the first and second text of a record; they must match exactly.
PAIRS = (
    ("text", "text_b"),
    ("premise", "hypothesis"),
    ("question", "answer"),
    ("question", "sentence"),
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("text1", "text2"),
    ("query", "passage"),
)
LABELS = (
    "label labels class category target intent sentiment department diagnosis topic verdict "
    "outcome rating grade y 标签 类别 分类 意图 情感 科室 诊断 主题 等级"
)
SEVERAL = "labels tags topics categories classes genres codes keywords"
# Words in names of columns of a person's items; whole names are compared.
ITEMS = ("items", "item_ids", "history", "sequence", "basket", "purchases", "clicks")
SCORES = "score scores grade mark marks points rating"
PERSONS = (
    "patient person customer client user subject member student employee speaker author mrn "
    "病人 患者 客户 用户 学生 会员 员工 病历"
)
SITES = (
    "site hospital clinic institution centre center branch bank ward school office "
    "医院 院区 机构 中心 支行 分行 学校 门店"
)
# Suffixes that may follow such a word in Chinese, which has no blanks: number, name.
SUFFIX = "(?:编号|号码|号|名称|名|代码|id)?"
