// Every word the page says, in English and Chinese. Sentences from the server keep the server's language unless
// their code is known here (`problem.CODE`).
import { recall, remember } from "./settings.js";

const WORDS = {
  en: {
    language: "中文",
    "language.switch": "切换到中文",
    skip: "Skip to the message box",
    "login.title": "Welcome to Roost",
    "login.lead": "Enter the access code to use the models on this machine.",
    "login.code": "Access code",
    "login.show": "Show the code",
    "login.enter": "Continue",
    "login.where": "To see the code, run “roost code” on the machine where Roost runs.",
    "login.wrong": "That is not the access code. Check it and try again.",
    "login.wait": "Too many wrong codes. Try again in {minutes} min.",
    "chat.new": "New chat",
    "chat.list": "Conversations",
    "chat.none": "Your conversations will appear here.",
    "chat.menu": "Open the list of conversations",
    "chat.menu.close": "Close the list of conversations",
    "chat.delete": "Delete this conversation",
    "chat.delete.title": "Delete this conversation?",
    "chat.delete.lead": "“{title}” and its answers are removed. This cannot be undone.",
    "chat.delete.yes": "Delete",
    "chat.running": "answering",
    "chat.unread": "new answer",
    "chat.untitled": "New chat",
    cancel: "Cancel",
    close: "Close",
    "when.today": "Today",
    "when.yesterday": "Yesterday",
    "when.week": "Last 7 days",
    "when.older": "Older",
    theme: "Switch between light and dark",
    logout: "Log out",
    model: "Model",
    "model.auto": "{name}",
    "model.absent": "not available",
    "model.loading": "loading",
    "model.failed": "failed",
    "model.unloading": "unloading",
    "empty.title": "What is on your mind?",
    "empty.lead": "Answers come from models on your own hardware. Nothing leaves the building.",
    "empty.1": "Explain how a rainbow forms, in three sentences",
    "empty.2": "Write a Python function that finds duplicate files",
    "empty.3": "Plan a quiet weekend with two children",
    "empty.4": "Make a polite reply that declines a meeting",
    "box.label": "Message",
    "box.hint": "Write a message",
    "box.send": "Send",
    "box.stop": "Stop answering (Esc)",
    "box.attach": "Add an image",
    "box.remove": "Remove {name}",
    "box.uploading": "{name} is being added",
    "box.keys": "Enter to send, Shift + Enter for a new line. Models can be wrong; check what matters.",
    "box.note": "Models can be wrong; check what matters.",
    "file.type": "{name} is not a PNG, JPEG, WebP or GIF image.",
    "file.size": "{name} is larger than {mb} MB.",
    "file.count": "At most {n} images with one message.",
    "file.failed": "{name} could not be added. {why}",
    "file.image": "Image",
    you: "You",
    thread: "Messages",
    answer: "Answer",
    sending: "Sending",
    waiting: "Waiting for the connection; it will be sent by itself",
    "place.next": "Next in the queue",
    "place.nth": "{nth} in the queue",
    "place.queued": "In the queue",
    thinking: "Thinking",
    "answer.copy": "Copy the answer",
    "answer.retry": "Try again",
    "answer.stopped": "You stopped this answer.",
    "answer.length": "The answer reached its length limit.",
    "answer.empty": "The model answered with nothing. Try again or ask in another way.",
    "answer.tokens": "{n} tokens",
    "answer.seconds": "{n} s",
    "answer.begun": "Roost is answering",
    "answer.done": "Answer: {text}",
    "send.again": "Send again",
    "code.copy": "Copy",
    "code.copied": "Copied",
    "code.plain": "text",
    jump: "Jump to the newest message",
    offline: "The connection is lost. Trying again…",
    "load.failed": "This conversation could not be loaded.",
    "load.again": "Try again",
    "problem.title": "There is no answer",
    "problem.queue_full": "The queue is full. Nothing was stored; try again in a moment.",
    "problem.rate_limited": "Too many messages in a short time. Wait a moment, then send again.",
    "problem.unknown_model": "This model is not available any more. Choose another one above.",
    "problem.too_large": "The message is too long. Shorten it or split it.",
    "problem.timeout": "The answer took too long. Try again, or choose a smaller model.",
    "problem.unavailable": "Roost is not ready yet. Try again in a moment.",
    "problem.network": "Roost cannot be reached. Check that it is running.",
    "problem.not_found": "This is not there any more.",
    "problem.internal": "Something went wrong inside Roost; its log has the details. Try again.",
  },
  zh: {
    language: "EN",
    "language.switch": "Switch to English",
    skip: "跳到输入框",
    "login.title": "欢迎使用 Roost",
    "login.lead": "输入访问码，即可使用这台机器上的模型。",
    "login.code": "访问码",
    "login.show": "显示访问码",
    "login.enter": "继续",
    "login.where": "在运行 Roost 的机器上执行“roost code”即可查看访问码。",
    "login.wrong": "访问码不正确，请检查后重试。",
    "login.wait": "错误次数过多，请在 {minutes} 分钟后重试。",
    "chat.new": "新对话",
    "chat.list": "对话列表",
    "chat.none": "你的对话会显示在这里。",
    "chat.menu": "打开对话列表",
    "chat.menu.close": "关闭对话列表",
    "chat.delete": "删除此对话",
    "chat.delete.title": "删除此对话？",
    "chat.delete.lead": "“{title}”及其回答将被删除，无法恢复。",
    "chat.delete.yes": "删除",
    "chat.running": "正在回答",
    "chat.unread": "有新回答",
    "chat.untitled": "新对话",
    cancel: "取消",
    close: "关闭",
    "when.today": "今天",
    "when.yesterday": "昨天",
    "when.week": "最近 7 天",
    "when.older": "更早",
    theme: "切换浅色与深色",
    logout: "退出登录",
    model: "模型",
    "model.auto": "{name}",
    "model.absent": "不可用",
    "model.loading": "加载中",
    "model.failed": "加载失败",
    "model.unloading": "卸载中",
    "empty.title": "想聊点什么？",
    "empty.lead": "回答来自你自己硬件上的模型，数据不会离开本地。",
    "empty.1": "用三句话解释彩虹是怎么形成的",
    "empty.2": "写一个查找重复文件的 Python 函数",
    "empty.3": "为两个孩子安排一个轻松的周末",
    "empty.4": "帮我礼貌地回绝一个会议",
    "box.label": "消息",
    "box.hint": "输入消息",
    "box.send": "发送",
    "box.stop": "停止回答（Esc）",
    "box.attach": "添加图片",
    "box.remove": "移除 {name}",
    "box.uploading": "正在添加 {name}",
    "box.keys": "Enter 发送，Shift + Enter 换行。模型可能出错，重要内容请核实。",
    "box.note": "模型可能出错，重要内容请核实。",
    "file.type": "{name} 不是 PNG、JPEG、WebP 或 GIF 图片。",
    "file.size": "{name} 超过 {mb} MB。",
    "file.count": "每条消息最多 {n} 张图片。",
    "file.failed": "无法添加 {name}。{why}",
    "file.image": "图片",
    you: "你",
    thread: "消息",
    answer: "回答",
    sending: "正在发送",
    waiting: "等待连接，恢复后会自动发送",
    "place.next": "队列中的下一个",
    "place.nth": "排在第 {n} 位",
    "place.queued": "排队中",
    thinking: "思考中",
    "answer.copy": "复制回答",
    "answer.retry": "重试",
    "answer.stopped": "你已停止此回答。",
    "answer.length": "回答已达到长度上限。",
    "answer.empty": "模型没有给出内容。请重试，或换一种问法。",
    "answer.tokens": "{n} 个词元",
    "answer.seconds": "{n} 秒",
    "answer.begun": "Roost 正在回答",
    "answer.done": "回答：{text}",
    "send.again": "重新发送",
    "code.copy": "复制",
    "code.copied": "已复制",
    "code.plain": "文本",
    jump: "跳到最新消息",
    offline: "连接已断开，正在重试…",
    "load.failed": "无法加载此对话。",
    "load.again": "重试",
    "problem.title": "没有得到回答",
    "problem.queue_full": "队列已满，消息未保存，请稍后重试。",
    "problem.rate_limited": "短时间内消息过多，请稍候再发送。",
    "problem.unknown_model": "该模型已不可用，请在上方选择其他模型。",
    "problem.too_large": "消息过长，请缩短或拆分。",
    "problem.timeout": "回答超时。请重试，或选择更小的模型。",
    "problem.unavailable": "Roost 尚未就绪，请稍后重试。",
    "problem.network": "无法连接 Roost，请确认它正在运行。",
    "problem.not_found": "内容已不存在。",
    "problem.internal": "Roost 内部出错，详情见日志。请重试。",
  },
};

let current = null;

export function language() {
  current ??= recall("language") ?? (navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en");
  return WORDS[current] ? current : "en";
}

export function switchLanguage() {
  current = language() === "en" ? "zh" : "en";
  remember("language", current);
  tellDocument();
  dispatchEvent(new Event("roost-language"));
}

export function tellDocument() {
  document.documentElement.lang = language() === "zh" ? "zh-CN" : "en";
}

/** The words under `key` with `{name}` filled in. */
export function t(key, values = {}) {
  const text = WORDS[language()][key] ?? WORDS.en[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

const ORDINAL = new Intl.PluralRules("en", { type: "ordinal" });
const SUFFIX = { one: "st", two: "nd", few: "rd", other: "th" };

export function placeInQueue(place) {
  if (!place) return t("place.queued");
  if (place === 1) return t("place.next");
  return t("place.nth", { n: place, nth: `${place}${SUFFIX[ORDINAL.select(place)]}` });
}

/** What happened and what to do, for an error `{code, message}`. */
export function problem(error) {
  const key = `problem.${error?.code}`;
  return WORDS.en[key] ? t(key) : error?.message || t("problem.internal");
}
