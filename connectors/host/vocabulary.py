"""The words by which the classifier knows what a message asks for. Data alone; `classify.py` says how they count."""

from __future__ import annotations

import re


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


def _pairs(phrases: str) -> frozenset[tuple[str, ...]]:
    return frozenset(tuple(phrase.split()) for phrase in phrases.split(", "))


# English: code. A weight of 3 is enough alone.

TECH: dict[str, int] = {
    **dict.fromkeys(
        _set(
            "javascript typescript c++ c# html css html5 css3 sql mysql postgres postgresql sqlite php kotlin "
            "golang haskell perl fortran cobol matlab bash powershell regex regexes regexp jquery node.js nodejs "
            "npm pip numpy pandas matplotlib pytorch tensorflow django fastapi kubernetes kubectl dockerfile docker "
            "makefile cmake webpack tailwind next.js vue.js localhost json yaml xml csv graphql pytest junit "
            "codebase dataframe dataframes div navbar useeffect usestate quicksort mergesort hashmap hashtable "
            "typeerror valueerror keyerror syntaxerror nullpointerexception segfault stacktrace traceback async vba "
            "boolean github gitlab unittest vim emacs linux ubuntu svg plotly jupyter terraform ansible nginx"
        ),
        3,
    ),
    **dict.fromkeys(
        _set(
            "python java scala lua julia react vue angular svelte flask bootstrap git redis mongodb backend "
            "frontend front-end back-end api apis endpoint endpoints refactor debug debugging recursion recursive "
            "http compile compiles compiler compiling boilerplate callback closure closures pointer pointers tuple "
            "tuples struct enum iterator lambda palindrome algorithm webpage scraper crawler parser middleware "
            "linter namespace polymorphism mutex semaphore goroutine stdout stdin"
        ),
        2,
    ),
}
AMBIGUOUS = _set("go c r rust swift ruby shell js ts node canvas")
"""Languages whose names are everyday words: they count after `in`, or before a word of `PARTS`."""
PAIRS = _pairs(
    "for loop, while loop, linked list, binary search, null pointer, null reference, time complexity, unit test, "
    "unit tests, merge conflict, merge conflicts, pull request, abstract class, regular expression, regular "
    "expressions, lru cache, git commit, git rebase, git push, stack trace, stack overflow, segmentation fault, "
    "core dumped, assembly code, dark mode, foreign key, database schema, source code, login form, shell script, "
    "bash script, web scraper, rest api, environment variable, environment variables, discord bot, telegram bot, "
    "chrome extension, command-line tool, landing page, web app, web component, dynamic programming, data "
    "structure, data structures, race condition, memory leak, off-by-one error, http request, http requests, "
    "event listener, type hints, local storage, console log, table scan"
)
MAKERS = _set(
    "write create implement build make code fix debug refactor optimise optimize generate develop design program "
    "rewrite port test review extend simplify"
)
WANTERS = _set("need want add give")
"""As makers, but of many other things too: half as much."""
ASKS = _set(
    "explain show convert translate parse sort use read merge resolve plot set run give install import deploy "
    "difference work works working using how why fails failing wrong error example help"
)
PARTS = _set(
    "function functions method script scripts program class code snippet algorithm component app application "
    "website webpage page form game bot macro query module package library plugin extension cli loop array variable "
    "one-liner server client button test tests dropdown calculator"
)
"""What a programmer makes; counts as the object of a maker's verb."""
ENDS = _set("that which who about with from in on to into back using so if of because where when")
"""Behind these begins something else than the object."""
WORKS = _set(
    "report story poem song essay email letter article blog post speech list recipe plan summary slogan slogans "
    "description contract novel book joke caption message toast limerick haiku review paragraph sentence tweet "
    "dialogue play movie film cover menu diet schedule itinerary budget resume cv reply note"
)
"""What a writer makes: with such an object the words after it are only its subject."""
PEOPLE = _set(
    "invented inventor salary salaries career careers job jobs hire hiring worth history founder founded earn snake "
    "snakes venomous pet zoo island bali indonesia coffee volcano monty taylor bicycle bike car stain stains metal "
    "remove movie film theatre theater novel yoga exercise workout fitness tv loyalty flyer beginners training diet "
    "sales speech podcast liver heart kidney dress postal zip area promo penal morse building conduct discount "
    "access stand stands hammurabi passport gym dance therapy church laws law guitar school kid kids teacher course "
    "degree"
)
"""Words of other worlds than a programmer's."""

# English: image

DRAWS = _set("draw sketch paint illustrate")
DRAWN_NOT = _set(
    "curtain curtains blinds conclusion conclusions line lines distinction distinctions comparison comparisons "
    "parallel parallels bath attention blood card cards lots straws straw blank crowd salary weapon gun sword "
    "inspiration inference inferences diagram diagrams flowchart chart graph table tree timeline argument arguments "
    "plan outline proposal strategy wall walls room bedroom kitchen bathroom ceiling fence nails house's deck "
    "garage point points concept idea ideas difference principle example examples why how what breath analogy "
    "lesson lessons lottery money funds cash uml schema"
)
PARTICLES = _set("up on upon from near out back in away over to")
"""Right after the verb they make another one of it: draw up, draw on."""
RENDERS = _set("generate create make produce design render visualize visualise imagine draw paint illustrate")
WISHES = _set("show give want need like get have see love")
PICTURES = _set(
    "picture pictures image images photo photos photograph pic pics illustration illustrations drawing painting "
    "sketch logo icon icons poster wallpaper portrait avatar cartoon artwork art banner sticker watercolor "
    "watercolour comic graphic mascot emoji meme photo-realistic photorealistic"
)
PAPERS = _set(
    "passport visa license licence id printer print camera upload delete resize crop backup frame gallery folder "
    "file receipt attached url alt tag caption captions recognition classifier viewer editor slider"
)
"""Beside a picture these speak of handling one."""
BETWEEN_NOT = _set("how what why where when which who whether list table report story poem email plan help")
POLITE = _set(
    "please can could would will you u i want d like to need just now hey hi hello kindly try then and also me next "
    "ok okay i'd pls plz so let's should go ahead first again id'd we the bot assistant roost d'you love i'll you'd "
    "quickly"
)
STYLES = re.compile(
    r"\b(?:[48]k|ultra[- ]?detailed|highly detailed|hyper[- ]?realistic|photo-?realistic|artstation"
    r"|cinematic|3d render|studio lighting|digital art|octane|unreal engine|concept art|oil on canvas|bokeh|pixel art"
    r"|pastel colou?rs|volumetric|dramatic lighting|vector art|line art|low poly|isometric)\b"
)
CAPTION = re.compile(
    r"^\W*(?:(?:an?|one)\s+(?:\w[\w-]*\s+){0,3}?)?(?:photo|photograph|picture|image|portrait|painting|watercolou?r|illustration"
    r"|drawing|sketch|render|close-up)(?:\s+painting)?\s+(?:of|showing)\s+\w"
)

# Both: what code looks like

SYNTAX = re.compile(
    "|".join(
        (
            r"```",
            r"^\s*(?:def|class)\s+\w+.*:\s*$",
            r"\bfunction\s*\w*\s*\([^)]*\)\s*\{",
            r"#include\s*<",
            r"^\s*import\s+\w+(?:\.\w+)*;?\s*$",
            r"^\s*from\s+[\w.]+\s+import\s",
            r"\b(?:public|private)\s+(?:static|void|class|int)\b",
            r"console\.\w+\(",
            r"\bselect\b.{1,200}\bfrom\b\s+\w+.{0,200}(?:\bwhere\b|\bgroup by\b|\border by\b|\bjoin\b|;)",
            r"</\w+>",
            r"<(?:div|span|html|body|script|button|input|table)\b[^>]*>",
            r"=>\s*[{(\w]",
            r"\bstd::",
            r"\bfn\s+\w+\(",
            r"\w\(\)",
            r";\s*$",
            r"\{\s*$",
            r"\bprintf\(",
            r"\bprint\s*[(\"']",
            r"\blambda\s+\w+:",
            r"\w+\[\w+\]",
            r"^\s*(?:const|let|var)\s+\w+\s*=",
            r"[=!]==?\s*[\w\"']+\s*[){]",
            r"\$\s*(?:npm|pip|git|sudo|docker)\b",
            r"\b(?:npm err|npm install|pip install)\b",
            r"^\s*traceback \(most",
            r"\w+\.(?:py|js|ts|cpp|java|rs|html|css|sh|jsx|tsx|php)\b",
            r"\bint main\b",
            r"undefined is not",
            r"is not defined\b",
            r"crashloopbackoff",
            r"\bexit(?:s|ed)?\b.{0,20}\bcode \d",
            r"expected '.{1,3}'",
        )
    ),
    re.MULTILINE,
)
EXCEPTIONS = re.compile(r"\b[A-Z]\w*(?:Error|Exception)\b")

# Chinese

ZH_CODE = re.compile(
    r"正则|爬虫|递归|数组|链表|单元测试|编译|重构|报错|空指针|多线程|多进程|二分查找|排序算法|快速排序|冒泡排序|数据结构"
    r"|代码(?:示例|块|段|片段)|[段行份些的]代码|写.{0,14}代码|代码(?:怎么|为什么|有什么问题|报错|优化|改成)|函数|前端|后端|数据库|算法"
    r"|类型注解|装饰器|面向对象|继承和多态|死锁|线程池|调试|[Bb][Uu][Gg]|脚本(?:文件|语言)|命令行|头文件|循环语句|死循环|响应式|懒加载|暗色模式"
)
ZH_MADE = re.compile(
    r"(?:写|做|实现|设计|生成|开发|搭建|创建|编)(?:[一1]?[个段份款套]|出|下)?.{0,16}?"
    r"(?:网页|网站|页面|登录页|组件|按钮|导航栏|小程序|程序(?!员)|脚本|接口|小游戏|插件|表单|命令|爬虫|应用程序?|计算器|机器人程序)"
)
ZH_CODE_NOT = re.compile(
    r"股票代码|邮政|国家代码|工资|薪资|前途|就业|发明|二次函数|一次函数|三角函数|数学|故事|小说|剧本|法律|诉讼|办事|产品介绍|邮件|作文"
)
ZH_DRAW = re.compile(
    r"(?:^|[，。！,、：:\s]|请|我们?|你|能|帮|给|不能?|来|再|想|要|风格|笔|可以|麻烦|大家)画(?:出|上)?(?:我)?"
    r"(?:一[^\s，。]|[两二三四五六几]|[个张幅只条朵匹辆座片棵位群点些]|[^\s，。]{1,8}(?:的|$))"
)
ZH_MADE_IMAGE = re.compile(
    r"(?:生成|创作|制作|设计|绘制|绘|做|来|要|画|[Pp]|渲染|合成|弄|搞|出)(?:.{0,18}?)"
    r"(?:图片|图像|插画|插图|海报|头像|壁纸|[Ll][Oo][Gg][Oo]|标志|图标|照片|水彩|油画|封面|表情包|贺卡|漫画|[张幅]图|夜景图|效果图|[幅张].{0,12}[画图]"
    r"|一幅.{0,12}的)"
)
ZH_CAPTION = re.compile(
    r"^一[张幅].{1,30}(?:照片|图片|图|画)|(?:动漫|油画|水彩|赛博朋克|写实|卡通)风格?.{0,30}(?:插画|高清|精细|[48][Kk])"
)
ZH_IMAGE_NOT = re.compile(
    r"怎么|如何|怎样|什么|为何|哪|区别|是谁|画饼|画蛇添足|画龙点睛|画地为牢|画重点|画等号|句号|画面|画展|画家|计划|规划|流程图|思维导图"
    r"|柱状图|折线图|饼图|架构图|表格|时间线|结构图|食谱|备份|上传|删除|不见了|推荐|证件|护照"
)

# Messages that go on with what was said

FOLLOWS = _set(
    "it its that this these those them also now again instead same another still here too rather both line above "
    "previous last fix add change rename remove replace continue explain"
)
ZH_FOLLOWS = re.compile(r"它|这[个段里行些样]|那[个段里行些]|改成|改为|换成|再|继续|上面|刚才|加[上个]|去掉|删掉|还是")
