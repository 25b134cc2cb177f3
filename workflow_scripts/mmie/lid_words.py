"""Function words and everyday forms that tell languages of one script apart. Written for this project."""

import unicodedata


def _words(text: str) -> frozenset[str]:
    return frozenset(unicodedata.normalize("NFC", text).split())


# Hindi's own: neither Marathi nor Nepali nor English in Devanagari has them.
HINDI = _words("""
है हैं था थी थे थीं हूँ हूं हुआ हुई हुए होना होने होगा होगी होंगे होंगी में से ने को के पर और यह वह ये वे इस उस
इन्हें उन्हें इसे उसे इसका इसकी इसके उसका उसकी उसके इनके इनका इनकी उनके उनका उनकी इसमें उसमें इससे उससे इसने
उसने उन्होंने इन्होंने उनसे उनमें उनको उसको इसको मैं मैंने मुझे मुझको मुझसे मेरा मेरी मेरे हमें हमने हमारा हमारी
हमारे तुम तुमने तुम्हें तुम्हारा तुम्हारी तुम्हारे तुझे तेरा तेरी तेरे आप आपको आपने आपका आपकी आपके आपसे अपना
अपनी अपने ख़ुद खुद हम कि जिस जिसे जिसने जिसका जिसकी जिसके जिसमें जिन्हें जिनके भी नहीं क्या क्यों कब कहाँ कहां
कैसे कैसा कैसी कौन कौनसा कोई किसी कुछ बहुत लिए साथ बाद लेकिन मगर अगर यदि जब तब अब फिर यहाँ यहां वहाँ वहां जहाँ
जहां क्योंकि इसलिए ताकि वरना बल्कि रहा रही रहे रहता रहती रहते रहना गया गयी गई गए गये किया किए किये करना करने
करती करके करें करो कीजिए करेगा करेंगे करूँगा होतीं दिया दिए देना देने देता देती दें दीजिए लिया लेना लेने लेता
लेती लेते लें लीजिए जाता जाती जाना जाने जाएगा जाएगी जाएँगे जाएंगे जाए जाएँ जाकर आती आते आने आया आई आए आकर चाहिए
चाहता चाहती चाहते सकता सकती सकते सका सके सकी लगा लगी लगे लगता लगती लगते वो हाँ हां अरे रखा रखी रखे रखना रखने
रखें पड़ा पड़ी पड़े पड़ता पड़ती पड़ते मिला मिली मिले मिलता मिलती मिलते बनाया बनाने बात लोग लोगों पूरा पूरी पूरे
वाला वाली वाले वालों तक बिना अंदर बाहर ऊपर नीचे पास बीच ज़्यादा ज्यादा थोड़ा थोड़ी थोड़े इतना इतनी इतने उतना
कितना कितनी कितने पहले पहली पहला दूसरे दूसरा दूसरी सभी सबसे सिर्फ़ सिर्फ केवल अभी कभी तभी जैसे जैसा जैसी ऐसे ऐसा
ऐसी वैसे यही वही यहीं वहीं कहा कहते कहता कहती बताया पूछा देखा देखकर कल नया नई नए बड़ा बड़ी बड़े अच्छा अच्छी
अच्छे छोटा छोटी छोटे दोनों द्वारा तरह ओर समय एवं तथा किन्तु परन्तु
""")

# Hindi, but Marathi or Nepali too, or what an English word sounds like: they count beside words of HINDI only.
HINDI_SHARED = _words("""
का की तो ही या हे हो होता होती होते करते करता जाते देते आता आज जो एक ना न मत ली दी सब दिन काम घर हर रोज़
""")

MARATHI = _words("""
आहे आहेत आहात आहेस नाही नाहीत नाहीस नव्हता नव्हती नव्हते नव्हतं होतं होतो होतास होतीस हवं हवे हवी हवा नको नका
आणि व मी तू ती ते त्या त्याने त्याचा त्याची त्याचे त्याच्या त्याला त्यांना त्यांनी त्यांचा त्यांची त्यांचे
त्यांच्या तिने तिला तिचा तिची तिचे तिच्या मला मलाही माझा माझी माझे माझं माझ्या आम्ही आम्हाला आमचा आमची आमचे
आमच्या तुम्ही तुम्हाला तुमचा तुमची तुमचे तुमच्या तुला तुझा तुझी तुझं तुझ्या आपण आपला आपली आपले आपल्या आपल्याला
स्वतः स्वतःच्या हा ह्या यांनी यांना याचा याची याचे याच्या याने याला त्यात यात ज्या ज्याने ज्याला जे काय कसे कसा
कशी कसं कधी कुठे कुठं कोण कोणी कोणीही कोणत्या कोणते कोणता किती काही काहीच कशाला पण म्हणून म्हणजे म्हणे म्हणाला
म्हणाली म्हणाले म्हणत मग इथे तिथे जिथे खूप फार साठी मध्ये वर वरून खाली खालून नंतर आधी पासून पर्यंत केला केली
केले केलं केल्या झाला झाली झाले झालं झाल्या झाल्यावर गेला गेली गेले गेलं गेल्या आला आली आले आलं आल्या दिला दिली
दिले दिलं घेतला घेतली घेतले घेतलं करतो करतात करत करून करायचं करायचे करायला करा असतो असते असतात असा अशी असे असं
अशा असेल असतील नसेल नसते असून होऊन होऊ झालेल्या येतो येते येतात येत येऊन जातो जातात जात जाऊन देऊन घेऊन ठेवून
पाहून बघून जर तर जेव्हा तेव्हा परंतु किंवा तरी तरीही अजून फक्त सगळे सगळ्या सगळी सर्व दोन उद्या काल दुसऱ्या
पहिल्या पाहिजे शकतो शकते शकतात शकत लागला लागली लागले लागतो लागते लागतात दररोज पुन्हा अगदी इतका इतकी इतके इतकं
इतक्या थोडं थोडे थोडी मोठा मोठी मोठे मोठं मोठ्या लहान नवा नवी नवे नवं नवीन चांगला चांगली चांगले चांगलं सकाळी
संध्याकाळी घरी लोक लोकांना मुलगा मुलगी मुले मुलं एका एकदा जवळ समोर बाहेर आत आतून बरोबर सोबत शिवाय
""")

NEPALI = _words("""
छ छन् छु छौं छैन हुन् हुन्छ हुन्छन् थियो थिए भयो भएको गर्न गर्ने गरेको गर्छ गर्नु पनि लागि बाट लाई र मा यो त्यो
उनी उनले मलाई हामी तपाईं होला गरी भने भन्ने नेपाल
""")

URDU = _words("""
ہے ہیں تھا تھی تھے ہوں ہو ہوا ہوئی ہوئے ہوتا ہوتی ہوتے میں سے نے کو کے کی کا پر اور یہ وہ اس ان انہیں اسے جو کہ
بھی نہیں کیا کیوں کب کہاں کیسے کون کوئی کچھ بہت لیے ساتھ بعد لیکن مگر اگر جب تب اب پھر یہاں وہاں رہا رہی رہے گیا
گئی گئے کرنا کرنے کرتا کرتی کرتے دیا دی دیے لیا تک میرا میری میرے ہم ہمیں ہمارا ہماری ہمارے آپ اپنا اپنی اپنے
مجھے تم تمہیں والا والی والے ہی تو ایک
""")

# Hindi as people type it in Latin letters; hardly any is a word of English.
ROMAN = _words("""
hai hain tha thi thin hoon hun hu hua hui hona hone hoga hogi honge hota hoti hote mein mai nahi nahin nhi nahii
kya kyaa kyun kyon kyu aur yeh woh voh yah vah uska uski uske iska iski iske unka unki unke inka inki inke usse
isse unse inse usne isne unhone unhonne inhone unhein unhe unhen inhe inhein usko isko unko inko mujhko tumko
humko usme usmein isme ismein unme unmein jisne jise jisse jinse jinhone jiska jiski jiske jisme jismein jinhe
jinke jab jahan jahaan jaise jaisa jaisi maine mene tumne humne hamne aapne mujhe mujhse tujhe hume humein
hamein hame tumhe tumhein tumhara tumhari tumhare tera teri tere aap aapko aapka aapki aapke aapse apko apka
apke mera meri hamara hamari hamare humara humari humare apna apni apne khud bhi kab kahan kahaan kaise kaisa
kaisi kaun kaunsa koi kisi kuch kuchh sabhi sabse bahut bohot bohut bahot boht liye saath sath baad lekin magar
agar phir yahan yahaan yaha wahan wahaan waha vahan kyunki kyonki kyuki isliye isiliye taaki warna varna balki
raha rahi rahe rahein rahen rehta rehti rehte rahta rahti rahte rehna rehne gaya gayi gayee gai gaye gae kiya
kiye kiyaa karna karne karni karta karti karte karke karo karein karen kijiye karega karegi karenge karunga
karungi diya diye dena dene deta deti dete dijiye liya lena lene leta leti lete lijiye jata jati jate jaata
jaati jaate jaana jaane jao jaye jaaye jaayega jayega jayegi jayenge jaakar jakar aata aati aate aane aana aaya
aayi aaye aakar chahiye chahie chaahiye chahta chahti chahte sakta sakti sakte saka saki laga lagi lage lagta
lagti lagte wala wali wale waala waali waale walon bina andar bahar baahar upar oopar neeche niche paas beech
zyada jyada zyaada thoda thodi thode itna itni itne utna utni utne kitna kitni kitne jitna jitni jitne pehle
pahle pehli pahli pehla doosra doosre doosri dusra dusre dusri sirf keval abhi kabhi tabhi aisa aisi aise waise
vaise yahi wahi yahin wahin kaha kahte kehte kehta kehti bataya bataaya poocha pucha dekha dekho dekhkar aaj roz
naya nayi naye bada badi bade bara accha achha acha acchi achhi acche achhe chhota chhoti chhote chota choti
chote dono donon har tarah samay logon baat baar ghar matlab theek thik kareeb chaar paanch kripya krpya bhai
yaar haan arre arey tum
""")

# Romanised Hindi too, but also English, or common elsewhere: they count beside words of ROMAN only.
ROMAN_SHARED = _words("""
ka ke ki ko se ne par me main to hi na mat ya us is so ho the jo sab tak kar ab ek do din log bas kal man kam un
in he le de di lo ja jaa wo ye jis kis hum mere hue sake raat kaam fir pe aa
""")

ENGLISH = _words("""
the and with that this these those from been being have would could should might must when where which who what
why how if then than because there here into about after before through during some any more most you your our
their they she her his him them it its while until between each such both many much every again once also still
even not were very out off just did does don't doesn't didn't it's isn't i'm only other people two first new
like make made get got know think said went came
""")

# English too, but also romanised Hindi, or common elsewhere: they count beside words of ENGLISH only.
ENGLISH_SHARED = _words("""
of to in is was are for as on at by be has had but or an a he we my i me us will can may up down do all no yes
own same too over so am go
""")
